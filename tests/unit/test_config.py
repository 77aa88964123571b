"""The configuration is read strictly, and every problem in it is reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from adapterbank.config.bank import (
    PARAMS,
    BackboneConfig,
    BankConfig,
    TrainConfig,
    find_bank,
    load_config,
    parse_config,
)
from adapterbank.errors import ConfigError, InputError, UnknownName

SMALL = "profile: demo\nprofiles: {demo: {}}\n"
FULL = """\
profile: demo
profiles:
  demo:
    limits: {train: 400, val: 200, test: null}
    train: {epochs: 8, batch_size: 16, weight_decay: 0.5}
  full: {}
backbone:
  uri: "random://vit_tiny_patch16_224?seed=0"
  size: [32, 48]
  mean: [0.5, 0.4, 0.3]
gates: {min_accuracy: 0.5}
tasks:
  dtd:
    data: torchvision://DTD
    hyper: {prompts: 5, stages: [1, 2]}
    train: {epochs: 3, learning_rate: 0.25}
  pets: {data: photos/pets, method: vpt_deep, seed: 7}
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, where="params.yaml")
    return caught.value.problems


def test_everything_written_is_read() -> None:
    config = parse_config(FULL, where="params.yaml")
    assert config.active == config.profiles["demo"]
    limits = config.active.limits
    assert (limits.train, limits.val, limits.test) == (400, 200, None)
    assert (config.gates.min_accuracy, config.task("pets").seed) == (0.5, 7)
    assert [config.task(name).method for name in ("dtd", "pets")] == ["vapt", "vpt_deep"]


def test_lists_become_tuples_so_that_nothing_can_be_changed() -> None:
    config = parse_config(FULL, where="params.yaml")
    assert config.backbone.size == (32, 48)
    assert config.backbone.mean == (0.5, 0.4, 0.3)
    assert config.task("dtd").hyper["stages"] == (1, 2)
    with pytest.raises(ValidationError, match="frozen"):
        config.profile = "full"


def test_a_tasks_own_training_settings_stand_on_top_of_the_profiles() -> None:
    config = parse_config(FULL, where="params.yaml")
    demo = TrainConfig(epochs=8, batch_size=16, weight_decay=0.5)
    assert config.training("pets") == demo
    own = demo.model_copy(update={"epochs": 3, "learning_rate": 0.25})
    assert config.training("dtd") == own


@pytest.mark.parametrize("start", ["none", "auto", "dtd@3", "dtd@"])
def test_a_warm_start_of_an_earlier_section_is_read(start: str) -> None:
    text = FULL.replace("seed: 7", f"seed: 7, warm_start: {start}")
    assert parse_config(text, where="params.yaml").task("pets").warm_start == start


def test_a_task_may_take_back_what_its_profile_sets() -> None:
    text = FULL.replace("learning_rate: 0.25", "weight_decay: null")
    assert parse_config(text, where="params.yaml").training("dtd").weight_decay is None


def test_an_input_spec_takes_the_backbones_statistics_where_none_are_set() -> None:
    spec = BackboneConfig(size=(32, 48), std=(0.1, 0.2, 0.3)).spec((0.7, 0.8, 0.9), (1.0, 1.0, 1.0))
    assert (spec.size, spec.mean, spec.std) == ((32, 48), (0.7, 0.8, 0.9), (0.1, 0.2, 0.3))


def test_an_unknown_task_lists_its_neighbours_and_how_to_add_it() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'dtd'") as caught:
        parse_config(FULL, where="params.yaml").task("dtf")
    assert caught.value.fix == "adapterbank task add dtf --data FOLDER"


@pytest.mark.parametrize("tasks", ["", "tasks:\n", "tasks: {}\n", "tasks: # all deleted\n"])
def test_a_bank_may_have_no_tasks(tasks: str) -> None:
    assert parse_config(SMALL + tasks, where="params.yaml").tasks == {}


def test_all_problems_are_reported_at_once_each_under_its_key() -> None:
    found = problems_of(
        """\
profile: demmo
profiles:
  demo: {limits: {train: 1}, train: {epochs: 0, recipee: paper}}
backbone: {size: [84, 84.5], interpolation: nearest}
gates: {min_accuracy: 1.5}
colour: red
tasks:
  Not A Name: {data: x}
  dtd: {data: x, metod: vapt, train: {epoks: 3, batch_size: -1}}
"""
    )
    keys = [problem.partition(": ")[0] for problem in found]
    assert sorted(keys) == [
        "backbone.interpolation",
        "backbone.size.1",
        "colour",
        "gates.min_accuracy",
        "profile",
        "profiles.demo.limits.train",
        "profiles.demo.train.epochs",
        "profiles.demo.train.recipee",
        "tasks.Not A Name",
        "tasks.dtd.metod",
        "tasks.dtd.train.batch_size",
        "tasks.dtd.train.epoks",
    ]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("taskz: {}", "tasks"),
        ("backbone: {urri: x}", "uri"),
        ("gates: {min_acuracy: 0.5}", "min_accuracy"),
        ("router: {referense: places@1}", "reference"),
        ("tasks: {dtd: {data: x, hyperr: {}}}", "hyper"),
        ("tasks: {dtd: {data: x, train: {lerning_rate: 0.1}}}", "learning_rate"),
    ],
)
def test_an_unknown_key_names_the_one_that_may_be_meant(line: str, meant: str) -> None:
    (problem,) = problems_of(SMALL + line)
    assert problem.endswith(f"unknown key, did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("tasks: {dtd: {data: 3}}", "tasks.dtd.data"),
        ("tasks: {dtd: {data: x, seed: '3'}}", "tasks.dtd.seed"),
        ("tasks: {dtd: {data: x, seed: -1}}", "tasks.dtd.seed"),
        ("tasks: {dtd: {data: x, seed: 1.5}}", "tasks.dtd.seed"),
        ("tasks: {dtd: {data: x, seed: true}}", "tasks.dtd.seed"),
        ("tasks: {dtd: {method: vapt}}", "tasks.dtd.data"),
        ("tasks: {dtd: }", "tasks.dtd"),
        ("tasks: {dtd: {data: x, train: {learning_rate: 0}}}", "tasks.dtd.train.learning_rate"),
        ("tasks: {dtd: {data: x, train: {learning_rate: .inf}}}", "tasks.dtd.train.learning_rate"),
        ("tasks: [dtd]", "tasks"),
        ("backbone: {size: [84, 0]}", "backbone.size.1"),
        ("backbone: {std: [0.2, 0.0, 0.2]}", "backbone.std.1"),
        ("backbone: {mean: [0.5, 0.5, .nan]}", "backbone.mean.2"),
        ("gates: {min_accuracy: .nan}", "gates.min_accuracy"),
        ("router: {alpha: 1.0}", "router.alpha"),
        ("router: {blocks: []}", "router.blocks"),
        ("router: {blocks: [0, 12]}", "router.blocks.0"),
        ("router: {reference: places}", "router.reference"),
        ("router: {reference: places@champion}", "router.reference"),
        ("router: {reference: not a name@1}", "router.reference"),
    ],
)
def test_a_value_that_means_nothing_is_refused_under_its_key(line: str, key: str) -> None:
    (problem,) = problems_of(SMALL + line)
    assert problem.partition(": ")[0] == key


def test_a_number_may_have_an_exponent_without_a_point() -> None:
    config = parse_config(SMALL + "tasks: {dtd: {data: x, train: {learning_rate: 2e-3}}}", "x")
    assert config.training("dtd").learning_rate == 0.002


def test_words_are_no_truth_values() -> None:
    config = parse_config(SMALL + "tasks: {no: {data: x, classes: [yes, no]}}", "x")
    assert config.task("no").classes == ("yes", "no")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    assert problems_of(text) == ("expected a mapping at the top",)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tprofile: demo", "!!python/object:os.x {}"])
def test_what_is_not_plain_yaml_is_refused(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith("not YAML: ")


def test_a_profile_that_is_not_there_is_refused_with_those_that_are() -> None:
    (problem,) = problems_of("profile: ful\nprofiles: {demo: {}, full: {}}")
    assert problem == "profile: 'ful' is not one of profiles: demo, full"


def test_a_bank_is_found_from_any_folder_below_it(tmp_path: Path) -> None:
    path = tmp_path / "bank" / PARAMS
    path.parent.mkdir(parents=True)
    path.write_text(FULL)
    below = tmp_path / "bank" / "work" / "dtd"
    below.mkdir(parents=True)
    root = (tmp_path / "bank").resolve()
    assert [find_bank(start) for start in (root, below, path.parent)] == [root] * 3
    assert load_config(root) == parse_config(FULL, where="params.yaml")


def test_no_bank_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not inside a bank") as caught:
        find_bank(tmp_path)
    assert caught.value.fix == "adapterbank init"
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path)


def test_problems_of_a_file_are_reported_under_its_name(tmp_path: Path) -> None:
    (tmp_path / PARAMS).parent.mkdir()
    (tmp_path / PARAMS).write_text("colour: red")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert caught.value.where == str(PARAMS)


def test_the_defaults_are_themselves_a_sound_configuration() -> None:
    config = parse_config(SMALL, where="params.yaml")
    assert BankConfig.model_validate(config.model_dump()) == config


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    text = "profile: demo\nprofiles: {demo: {}}\ntasks:\n  a: {data: x}\n  a: {data: y}\n"
    with pytest.raises(ConfigError, match=r"'a' stands here twice") as caught:
        parse_config(text, "params.yaml")
    assert "line 5" in str(caught.value)


def test_a_merge_conflict_is_told_as_what_it_is() -> None:
    text = "<<<<<<< HEAD\nprofile: a\n=======\nprofile: b\n>>>>>>> theirs\n"
    with pytest.raises(ConfigError, match="has a merge conflict") as caught:
        parse_config(text, "params.yaml")
    assert "git add params.yaml" in str(caught.value.fix)
