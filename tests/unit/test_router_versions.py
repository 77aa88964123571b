"""The router in a registry: a version like any other, and a function of the champions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from adapterbank.config.router import RouterConfig
from adapterbank.errors import BackboneMismatch, InputError, IntegrityError, UnknownName
from adapterbank.inference.artifact import add_metrics
from adapterbank.inference.router_versions import rebuild_router
from adapterbank.inference.routing import load_router
from adapterbank.records import ROUTER, check_new_task
from adapterbank.registry.collect import collect
from adapterbank.sync.status import find_discrepancies
from tests import served
from tests.bank_samples import damage
from tests.kept_bank import content_of
from tests.router_bank import COLOURS, colour_registry, publish


def test_the_same_champions_are_the_same_version_and_nothing_is_written(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path)
    first = rebuild_router(registry, reason="release")
    before = content_of(tmp_path)
    again = rebuild_router(registry, reason="release")
    assert first.published
    assert first.served
    assert first.tasks == tuple(sorted(COLOURS))
    assert not again.published
    assert again.version == first.version
    assert content_of(tmp_path) == before
    assert registry.verify() == ()
    assert [event.action for event in registry.history(ROUTER)] == ["register", "promote"]


def test_any_order_of_adding_and_removing_tasks_gives_the_same_digest(tmp_path: Path) -> None:
    digests = []
    for index, order in enumerate((("reds", "greens"), ("greens", "blues", "reds"))):
        registry = colour_registry(tmp_path / str(index), *order)
        if "blues" in order:
            rebuild_router(registry, reason="with all")
            registry.retire("blues")
        version = rebuild_router(registry, reason="release").version
        assert version is not None
        digests.append((version.digest, content_of(version.path)))
    assert digests[0] == digests[1]


def test_adding_a_task_changes_no_other_file(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens")
    rebuild_router(registry, reason="release")
    before = content_of(tmp_path)
    publish(registry, "blues", 3)
    rebuild_router(registry, reason="release")
    after = content_of(tmp_path)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"router.json"}
    added = {name.split("/")[0] + "/" + name.split("/")[1] for name in after.keys() - before.keys()}
    assert {name for name in added if not name.startswith("router/")} == {
        "adapters/blues", "aliases/blues.json",
    }  # fmt: skip
    assert len([name for name in added if name.startswith("router/")]) == 1


def test_a_new_champion_on_the_same_images_leaves_the_router_as_it_is(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path)
    first = rebuild_router(registry, reason="release").version
    publish(registry, "reds", 9)
    assert rebuild_router(registry, reason="release").version == first


def test_settings_are_part_of_what_the_router_is(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path)
    first = rebuild_router(registry, reason="release").version
    strict = RouterConfig(alpha=0.2, margin=0.5, cap=30)
    second = rebuild_router(registry, strict, reason="release")
    assert second.published
    _, router = load_router(registry)
    assert (router.alpha, router.margin, router.cap) == (0.2, 0.5, 30)
    assert rebuild_router(registry, reason="release").version == first


def test_a_record_of_an_earlier_layout_is_left_out_and_named(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path)
    old = registry.resolve("reds")
    arrays = load(registry.read(old)["routing.safetensors"])
    del arrays["blocks"]
    kept = ("adapter_model.safetensors", "adapter_config.json", "canary.safetensors")
    files = {name: data for name, data in registry.read(old).items() if name in kept}
    packed = add_metrics(files | {"routing.safetensors": save(arrays)}, served.METRICS)
    registry.promote(str(registry.register("reds", packed)), expected=1)
    done = rebuild_router(registry, reason="release")
    assert done.tasks == ("blues", "greens")
    assert list(done.left_out) == ["reds"]
    assert "train@reds" in done.notes[0]


def test_an_isolated_router_moves_nobodys_scores_when_a_task_comes(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens", "whites")
    config = RouterConfig(reference="whites@1")
    rebuild_router(registry, config, reason="release")
    _, few = load_router(registry)
    assert few.tasks == ("greens", "reds")  # no image is ever given to the reference's task
    assert few.mode == "isolated"
    assert (few.aside, len(few.reference)) == ("whites", 64)
    publish(registry, "blues", 3)
    rebuild_router(registry, config, reason="release")
    _, more = load_router(registry)
    assert more.tasks == ("blues", "greens", "reds")
    for task in few.tasks:
        np.testing.assert_array_equal(few.parts[task].prototypes, more.parts[task].prototypes)
        np.testing.assert_array_equal(few.parts[task].calibration, more.parts[task].calibration)
    assert [one.message for one in find_discrepancies(registry) if one.place == "router"] == []


def test_a_record_of_fewer_blocks_narrows_the_router_and_says_so(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens")
    assert rebuild_router(registry, reason="release").blocks == (1, 2)
    publish(registry, "blues", 3, blocks=(2,))
    done = rebuild_router(registry, reason="release")
    assert (done.blocks, done.narrowing) == ((2,), ("greens", "reds"))
    assert "block 2 only" in done.notes[0]
    isolated = rebuild_router(registry, RouterConfig(reference="reds@1"), reason="release")
    assert isolated.blocks == (1, 2)  # no other task changes what scores are measured by
    assert isolated.tasks == ("greens",)
    assert "of blocks 2, that of the reference of 1 and 2" in isolated.left_out["blues"]
    told = [one for one in find_discrepancies(registry) if one.place == "router"]
    assert [(one.task, one.fix) for one in told] == [
        ("blues", "dvc repro -f train@blues && dvc repro")
    ]


def test_a_reference_alone_makes_no_router(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "whites")
    with pytest.raises(InputError, match="no task but whites"):
        rebuild_router(registry, RouterConfig(reference="whites@1"), reason="release")


def test_the_cap_is_of_pooled_routers_alone(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "whites")
    for reference, same in (("whites@1", True), (None, False)):
        found = []
        for cap in (5, 400):
            rebuild_router(registry, RouterConfig(reference=reference, cap=cap), reason="a test")
            found.append(load_router(registry)[1].parts["reds"].prototypes)
        assert np.array_equal(found[0], found[1]) is same


def test_a_router_of_another_layout_is_told_as_such(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds")
    version = rebuild_router(registry, reason="release").version
    assert version is not None
    files = dict(registry.read(version))
    files["router.json"] = files["router.json"].replace(b'"schema": 2', b'"schema": 1')
    del files["manifest.json"]
    registry.promote(str(registry.register(ROUTER, files)), expected=1)
    with pytest.raises(IntegrityError, match="layout 1"):
        load_router(registry)
    (told,) = [one for one in find_discrepancies(registry) if one.place == "router"]
    assert told.fix == "adapterbank router rebuild"
    rebuild_router(registry, reason="by hand")
    assert [one for one in find_discrepancies(registry) if one.place == "router"] == []


@pytest.mark.parametrize("reference", ["whites@2", "nobody@1"])
def test_a_reference_that_is_not_there_is_named(tmp_path: Path, reference: str) -> None:
    registry = colour_registry(tmp_path, "reds", "whites")
    with pytest.raises(UnknownName):
        rebuild_router(registry, RouterConfig(reference=reference), reason="release")


def test_a_rolled_back_router_stays_back_until_it_is_asked_for(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens")
    rebuild_router(registry, reason="release")
    publish(registry, "blues", 3)
    rebuild_router(registry, reason="release")
    registry.rollback(ROUTER, expected=2)
    assert not rebuild_router(registry, reason="release").served
    assert load_router(registry)[1].tasks == ("greens", "reds")
    assert rebuild_router(registry, reason="by hand", forward=True).served
    assert load_router(registry)[1].tasks == ("blues", "greens", "reds")
    assert registry.aliases(ROUTER) == {"champion": 2, "previous": 1}


def test_without_any_champion_there_is_no_router(tmp_path: Path) -> None:
    registry = served.new_registry(tmp_path)
    assert rebuild_router(registry, reason="release").version is None
    with pytest.raises(UnknownName, match="none yet") as caught:
        load_router(registry)
    assert caught.value.fix == "adapterbank router rebuild"
    assert registry.names() == ()


@pytest.mark.parametrize("name", ["router.json", "router.safetensors", "manifest.json"])
def test_a_flipped_bit_is_named_and_mended_by_a_rebuild(tmp_path: Path, name: str) -> None:
    registry = colour_registry(tmp_path)
    version = rebuild_router(registry, reason="release").version
    assert version is not None
    damage(version.path / name)
    (problem,) = registry.verify()
    assert (problem.kind, problem.task) == ("damaged", ROUTER)
    assert problem.fix == "adapterbank router rebuild"
    with pytest.raises(IntegrityError, match=name):
        load_router(registry)
    assert {p.task for p in registry.verify("reds")} == set()  # adapters do not mind
    rebuild_router(registry, reason="by hand")
    assert registry.verify() == ()
    assert load_router(registry)[0] == version


def test_a_router_that_is_a_link_out_of_the_registry_is_refused(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path / "registry", "reds")
    rebuild_router(registry, reason="release")
    (tmp_path / "registry" / "router").rename(tmp_path / "elsewhere")
    (tmp_path / "registry" / "router").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="symbolic link"):
        load_router(registry)
    with pytest.raises(IntegrityError, match="symbolic link"):
        rebuild_router(registry, reason="release")


def test_a_router_of_another_backbone_is_not_registered(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path / "one", "reds")
    version = rebuild_router(registry, reason="release").version
    assert version is not None
    other = served.new_registry(tmp_path / "other", seed=1)
    with pytest.raises(BackboneMismatch):
        other.register(ROUTER, registry.read(version))


@pytest.mark.parametrize("name", ["auto", "router"])
def test_names_that_stand_for_the_router_are_no_tasks(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a task"):
        check_new_task(name)
    registry = served.new_registry(tmp_path)
    made = served.adapter()
    with pytest.raises((InputError, IntegrityError)):
        registry.register(name, served.pack(made, served.describe(name, made)))
    assert registry.tasks() == ()


def test_gc_takes_a_router_that_nobody_registered_and_no_other(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds")
    rebuild_router(registry, reason="release")
    kept = content_of(tmp_path)
    publish(registry, "greens", 2)
    rebuild_router(registry, reason="release")
    orphan = registry.versions(ROUTER)[1]
    (tmp_path / "router.json").write_bytes(kept["router.json"])
    (problem,) = registry.verify()
    assert (problem.kind, problem.task, problem.path) == ("orphan", ROUTER, orphan.path)
    stays = collect(tmp_path, lambda task, _: f"a test of {task}", dry_run=False)
    assert [waste.needed_by for waste in stays] == ["a test of router"]
    (gone,) = collect(tmp_path, lambda *_: None, dry_run=False)
    assert (gone.kind, gone.path) == ("orphan", orphan.path)
    assert [path.name for path in sorted((tmp_path / "router").iterdir())] == [
        registry.resolve(ROUTER).digest
    ]
    assert registry.verify() == ()


def test_status_names_what_the_served_router_does_not_know(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens")

    def told() -> list[str]:
        return [one.message for one in find_discrepancies(registry) if one.place == "router"]

    assert told() == []  # nobody routes
    rebuild_router(registry, reason="release")
    assert told() == []
    publish(registry, "reds", 9)  # the same images: the same record
    assert told() == []
    publish(registry, "blues", 3)
    assert told() == ["router@1 does not have the record of blues@1"]
    registry.retire("greens")
    assert told() == [
        "router@1 does not have the record of blues@1",
        "router@1 has greens, which has no champion",
    ]
    assert {one.fix for one in find_discrepancies(registry) if one.place == "router"} == {
        "adapterbank router rebuild"
    }
    rebuild_router(registry, reason="by hand")
    assert told() == []
