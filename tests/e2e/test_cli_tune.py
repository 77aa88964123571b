"""Searches from the command line, up to where Ray would start: bad input, and what is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import read_winner, search_identity
from adapterbank.cli import search_view
from adapterbank.errors import AdapterBankError
from adapterbank.search import cluster, study
from adapterbank.search.ledger import Ledger
from adapterbank.search.storage import Storage
from adapterbank.search.task_search import Standing
from tests.cli_samples import PARAMS, Cli
from tests.search_trials import TASK, configure, ended, refuse, searched


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Let no test start Ray; return the addresses that were asked for."""
    asked: list[str | None] = []

    @contextmanager
    def connected(address: str | None) -> Iterator[dict[str, float]]:
        asked.append(address)
        yield {"CPU": 2.0}

    def fit(*_: object) -> None:
        raise AdapterBankError("here the trials would run")

    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr(study, "connected", connected)
    monkeypatch.setattr(study, "run_experiment", fit)
    monkeypatch.setattr(study, "share", lambda _: None)
    monkeypatch.setattr(study, "share_images", lambda _: None)
    monkeypatch.setattr(cluster, "_alive", lambda: nodes)
    return asked


def registry_of(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((root / "registry").rglob("*")) if p.is_file()}


VAL_LIMIT = "limits: {train: 24, val: 12, test: 12}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PARAMS, ["the profile tiny has no search"]),
        (searched(spaces=""), ["spaces.vapt", "nothing to search"]),
        (searched(spaces="spaces: {vapt: {}}\n"), ["spaces.vapt", "nothing to search"]),
        (
            searched(spaces="spaces: {vatp: {prompts: [1]}}\n"),
            ["nothing to search; vatp: no such method"],
        ),
        (
            searched(hyper="    hyper: {prompts: 2}\n    train: {learning_rate: 0.1}\n"),
            ["all of it is pinned by the task colours"],
        ),
        (
            searched(hyper="", **{"method: vapt": "method: linear"}),
            ["linear is solved in closed form"],
        ),
        (
            searched("    search: {sampler: random, max_parameters: 1}\n"),
            ["no configuration of the space fits", "max_parameters"],
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_starts(
    bank: Path, cli: Cli, no_ray: list[str | None], text: str, said: list[str]
) -> None:
    configure(bank, text)
    before = registry_of(bank)
    refuse(cli("tune", TASK), 2, *said)
    assert registry_of(bank) == before
    assert no_ray == []
    assert not (bank / "work" / TASK / "search" / "trials").exists()


@pytest.mark.parametrize(
    ("search", "space", "said"),
    [
        ("random", "{promts: [1]}", ["promts: vapt has no such hyper-parameter", "prompts"]),
        ("random", "{prompts: [1, few]}", ["prompts: ", "'few'"]),
        ("random", "{prompts: [0, 2]}", ["greater than or equal to 1, got 0"]),
        ("random", "{rank2: [1], promts: [1]}", ["2 problems", "rank2", "promts"]),
        ("random", "{prompts: [2, 3, 2]}", ["prompts: a value stands there twice"]),
        ("random", "{learning_rate: [1, 1.0]}", ["a value stands there twice"]),
        ("random", "{activation: {low: 1.0, high: 2.0}}", ["activation: ", "'relu', 'gelu'"]),
        ("random", "{prompts: {low: 1.0, high: 2.0}}", ["prompts: input should be a valid int"]),
        ("random", "{recipe: [default, papr]}", ["Unknown recipe 'papr'", "'paper'"]),
        ("random", "{recipe: [closed_form]}", ["closed form"]),
        ("random", "{learning_rate: [0.0]}", ["learning_rate: ", "greater than 0"]),
        ("grid", "{prompts: {low: 1, high: 3, integer: true}}", ["a grid needs a list"]),
    ],
)  # fmt: skip
def test_a_space_that_its_method_does_not_know_is_refused_with_every_problem(
    bank: Path, cli: Cli, no_ray: list[str | None], search: str, space: str, said: list[str]
) -> None:
    configure(
        bank,
        searched(
            f"    search: {{sampler: {search}, trials: 2}}\n",
            f"spaces:\n  vapt: {space}\n",
            hyper="",
        ),
    )
    refuse(cli("tune", TASK), 2, "spaces.vapt", *said, fix=False)
    assert no_ray == []


def test_a_task_whose_own_hyper_is_wrong_is_told_so(bank: Path, cli: Cli) -> None:
    configure(bank, searched(hyper="    hyper: {rnak: 2}\n"))
    refuse(cli("tune", TASK), 2, "tasks.colours.hyper: 1 problem", "rnak: unknown key", fix=False)


def test_all_that_is_wrong_in_the_parameters_is_said_at_once(bank: Path, cli: Cli) -> None:
    (bank / "pipelines" / "params.yaml").write_text(
        searched(
            "    search: {smapler: grid, trails: 3}\n",
            "spaces: {vapt: {rank: {low: 1, hihg: 2}, prompts: []}}\n",
        )
    )
    refuse(
        cli("tune", TASK), 2, "did you mean 'sampler'?", "did you mean 'trials'?",
        "did you mean 'high'?", "spaces.vapt.prompts", fix=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tune"], 2, ["expected the name of a task, or --all"]),
        (["tune", TASK, "--all"], 2, ["colours among them"]),
        (["tune", TASK, "--resume", "--fresh"], 2, ["exclude one another"]),
        (["tune", "colors"], 3, ["Unknown task 'colors'", "'colours'"]),
        (["tune", TASK, "--storage", "ftp://host/x"], 2, ["ftp://host/x", "s3://bucket/prefix"]),
        (["tune", TASK, "--storage", "photos/blue/00.png"], 2, ["cannot be used", "--storage"]),
        (["tune", TASK, "--gpus-per-trial", "1"], 2, ["asks for 1 GPUs", "--gpus-per-trial"]),
        (
            ["tune", TASK, "--cpus-per-trial", "3"],
            2,
            ["asks for 3 CPUs; the largest node has 2", "--cpus-per-trial"],
        ),
    ],
)
def test_what_is_asked_wrongly_is_refused_with_what_to_ask(
    searching: Bank, cli: Cli, words: list[str], code: int, said: list[str]
) -> None:
    before = registry_of(searching.root)
    refuse(cli(*words), code, *said)
    assert registry_of(searching.root) == before
    # What was refused left no search behind that would be in the way of the next.
    refuse(cli("tune", TASK), 1, "here the trials would run", fix=False)


def test_a_bank_without_tasks_has_nothing_to_search(bank: Path, cli: Cli) -> None:
    configure(bank, searched().split("tasks:\n")[0] + "tasks: {}\n")
    refuse(cli("tune", "--all"), 2, "the bank has no task", "adapterbank task add")


def test_a_class_without_a_validation_image_is_named(searching: Bank, cli: Cli) -> None:
    configure(searching.root, searched(**{VAL_LIMIT: "limits: {train: 24, val: 2, test: 12}"}))
    refuse(cli("tune", TASK), 2, "classes have no validation image", "limits.val")


def test_a_task_of_one_class_is_refused(searching: Bank, cli: Cli, no_ray: list[str]) -> None:
    for name in ("blue", "green"):
        shutil.rmtree(searching.root / "photos" / name)
    shutil.rmtree(searching.data(TASK))
    ran = cli("tune", TASK)
    refuse(ran, 2, "class", fix=False)
    assert no_ray == []


def leave_a_search(bank: Bank, *, identity: str | None = None) -> Ledger:
    """Leave what an interrupted search leaves."""
    place = Storage(bank.root / "work" / TASK / "search")
    book = Ledger(place, TASK, identity or search_identity(bank, TASK))
    book.note()
    book.put(ended(0, [10], values={"prompts": 2, "learning_rate": 0.01}))
    book.put(ended(1, [], state="started", values={"prompts": 3, "learning_rate": 0.01}))
    return book


def test_an_interrupted_search_wants_to_be_told_whether_to_go_on(searching: Bank, cli: Cli) -> None:
    leave_a_search(searching)
    refuse(cli("tune", TASK), 5, "was interrupted; 1 of its trials are done", "--resume")
    went_on = cli("tune", TASK, "--resume")
    refuse(went_on, 1, "1 of its trials are done", "here the trials would run", fix=False)
    anew = cli("tune", TASK, "--fresh")
    refuse(anew, 1, "here the trials would run", fix=False)
    assert "are done" not in anew.err


@pytest.mark.parametrize("option", [[], ["--resume"]])
def test_a_search_of_another_configuration_is_in_the_way_until_it_is_thrown_away(
    searching: Bank, cli: Cli, option: list[str], no_ray: list[str]
) -> None:
    leave_a_search(searching, identity="2" * 64)
    refuse(cli("tune", TASK, *option), 5, "other data or settings", "--fresh", "--storage")
    assert no_ray == []
    refuse(cli("tune", TASK, "--fresh"), 1, "here the trials would run", fix=False)
    assert len(no_ray) == 1


def test_a_damaged_search_says_which_file_and_what_to_do(searching: Bank, cli: Cli) -> None:
    leave_a_search(searching)
    (searching.root / "work" / TASK / "search" / "trials" / "00000.json").write_text("{")
    refuse(cli("tune", TASK, "--resume"), 4, "00000.json", "tune colours --fresh")


def test_throwing_a_search_away_spares_what_else_is_in_the_folder(
    searching: Bank, cli: Cli
) -> None:
    photos = searching.root / "photos"
    (searching.root / "shared").mkdir()
    shutil.copytree(photos, searching.root / "shared" / TASK)
    cli("tune", TASK, "--fresh", "--storage", "shared")
    kept = list((searching.root / "shared" / TASK).rglob("*.png"))
    assert len(kept) == len([*photos.rglob("*.png")]) > 0


def finished(bank: Bank) -> None:
    book = leave_a_search(bank)
    book.put(ended(1, [50], values={"prompts": 3, "learning_rate": 0.02}))
    book.note(complete=True)


def test_a_complete_search_is_told_again_without_ray(
    searching: Bank, cli: Cli, no_ray: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    finished(searching)
    before = registry_of(searching.root)
    ran = cli("tune", TASK)
    assert ran.code == 0, ran
    assert no_ray == []
    assert "learning_rate=0.02 prompts=3  ← chosen" in ran.out
    assert "Chosen among 2 trials (2 epochs, random, asha)" in ran.out
    assert "adapterbank train colours" in ran.out
    (found,) = json.loads(cli("tune", TASK, "--json").out)["searches"]
    assert (found["trial"], found["values"]["prompts"], found["task"]) == (1, 3, TASK)
    assert found["val"] == {"correct": 50, "total": 100}
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    assert set(found["front"]) <= {0, 1}
    winner = read_winner(searching, TASK)
    assert winner is not None
    assert winner.values == found["values"]
    assert registry_of(searching.root) == before


def test_a_search_may_go_on_with_other_resources(searching: Bank, cli: Cli) -> None:
    leave_a_search(searching)
    for words in ([], ["--cpus-per-trial", "2"], ["--max-concurrent", "1"]):
        refuse(cli("tune", TASK, "--resume", *words), 1, "here the trials would run", fix=False)


# --- what is shown


def standing(**changes: object) -> Standing:
    plain = {
        "task": TASK, "trials": 8, "ended": 3, "running": 2, "epochs": 21,
        "best": ended(1, [50], values={"prompts": 3, "learning_rate": 0.012345}),
        "score": 0.5, "left_s": 90.0,
    }  # fmt: skip
    return Standing(**(plain | changes))  # type: ignore[arg-type]


def test_a_log_gets_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with closing(search_view.SearchView(quiet=False, clock=lambda: now[0])) as view:
        for seconds in (0.0, 3.0, 9.9, 10.0, 15.0):
            now[0] = seconds
            view.update(standing())
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err.splitlines()
        == ["colours:  3/8 trials  2 running  21 epochs  best 50.0%  1 min 30 s left"] * 2
    )


def test_a_log_gets_a_line_for_each_trial_that_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(search_view.SearchView(quiet=False)) as view:
        view.ended(TASK, ended(0, [10, 50], values={"prompts": 3, "learning_rate": 0.012345}))
        view.ended(TASK, ended(1, [10], state="stopped"))
        view.ended(TASK, ended(2, [], state="failed", error="[red]its worker was lost"))
    assert capsys.readouterr().err.splitlines() == [
        "colours trial 0  val 50.0%  2 epochs  prompts=3 learning_rate=0.0123",
        "colours trial 1  val 10.0%  1 epochs, stopped  learning_rate=0.1",
        "colours trial 2  no epoch  0 epochs  learning_rate=0.1  failed: [red]its worker was lost",
    ]


def test_a_quiet_log_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(search_view.SearchView(quiet=True)) as view:
        view.update(standing())
        view.ended(TASK, ended(0, [10]))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_one_table_of_all_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    with closing(search_view.SearchView(quiet=True)) as view:
        view.update(standing())
        view.update(standing(task="tints", trials=None, best=None, score=None))
        view.ended(TASK, ended(0, [10, 50]))
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("best on validation", "colours", "3/8 trials", "50.0%", "tints", "3/? trials",
                 "prompts=3", "colours trial 0  val 50.0%"):  # fmt: skip
        assert part in err, part
