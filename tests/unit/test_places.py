"""Where a registry lies and what the clock says: names, moves, links and jumps change nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from adapterbank import durable
from adapterbank.bank.bank import Bank
from adapterbank.continual.audit import audit
from adapterbank.errors import AdapterBankError, ConflictError, InputError, IntegrityError
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.collect import collect
from adapterbank.registry.store import Registry
from tests import served
from tests.kept_bank import OTHER, TASK, make_kept_bank, write_params
from tests.registry_samples import BACKBONE, files_of, new_registry

NAMES = ["with spaces ", "für Übung", "日本 登録", "a'b\"c$d", "-rf", "e\u0301", "new\nline"]


def _fill(registry: Registry) -> Registry:
    for seed in range(2):
        registry.register("dtd", files_of("dtd", seed))
    registry.promote("dtd@1", expected=None)
    registry.promote("dtd@2", expected=1)
    return registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return _fill(new_registry(tmp_path / "registry"))


def _files(registry: Registry, number: int) -> dict[str, bytes]:
    files = registry.read(registry.resolve(f"dtd@{number}"))
    return {name: data for name, data in files.items() if name != "manifest.json"}


def _is_sound(registry: Registry) -> bool:
    read = [_files(registry, number) for number in (1, 2)]
    return read == [files_of("dtd", seed) for seed in range(2)] and registry.verify() == ()


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    registry = _fill(new_registry(tmp_path / name / name))
    assert registry.rollback("dtd", expected=2).after.version == 1
    registry.retire("dtd")
    registry.promote("dtd@2", expected=None)
    assert _is_sound(registry)
    (registry.root / "adapters" / "dtd" / ".tmp-left").mkdir()
    (waste,) = collect(registry.root, lambda *_: None, dry_run=False)
    assert waste.path.parent == registry.root / "adapters" / "dtd"
    assert _is_sound(Registry.open(str(tmp_path / name / name)))


def test_a_bank_in_such_a_folder_answers_and_can_be_audited(tmp_path: Path) -> None:
    bank = make_kept_bank(tmp_path / "für 日本")
    (answer,) = Predictor(bank.registry).predict([Image.new("RGB", (40, 36))], task=OTHER)
    assert answer.digest == bank.registry.resolve(OTHER).digest
    report = audit(bank)
    assert report.ok
    assert len(report.versions) == 3


# --- moves ---------------------------------------------------------------------------------------


def test_an_open_registry_that_was_moved_says_so_to_readers(
    registry: Registry, tmp_path: Path
) -> None:
    version = registry.resolve("dtd")
    registry.root.rename(tmp_path / "moved")
    for ask in (
        lambda: registry.resolve("dtd"),
        lambda: registry.versions("dtd"),
        registry.tasks,
        registry.verify,
        registry.backbone,
        lambda: registry.register("dtd", files_of("dtd", 5)),
    ):
        with pytest.raises(InputError, match="no such folder") as caught:
            ask()
        assert str(registry.root) in caught.value.message
    with pytest.raises(IntegrityError, match="is not here"):
        registry.read(version)
    assert _is_sound(Registry.open(tmp_path / "moved"))


def test_an_open_registry_that_was_moved_writes_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.root.rename(tmp_path / "moved")
    for write in (
        lambda: registry.promote("dtd@1", expected=2),
        lambda: registry.rollback("dtd"),
        lambda: registry.retire("dtd"),
        lambda: registry.set_backbone(BACKBONE),
    ):
        with pytest.raises(AdapterBankError, match="No such file or directory"):
            write()
    assert not registry.root.exists()  # nobody made a new one under the old name
    moved = Registry.open(tmp_path / "moved")
    assert moved.aliases("dtd") == {"champion": 2, "previous": 1}
    assert _is_sound(moved)


def test_another_registry_in_the_old_place_is_served_as_what_it_is(
    registry: Registry, tmp_path: Path
) -> None:
    old = registry.resolve("dtd@2")
    registry.root.rename(tmp_path / "moved")
    other = new_registry(registry.root)
    other.register("dtd", files_of("dtd", 7))
    with pytest.raises(IntegrityError):
        registry.read(old)  # another's bytes are never taken for it
    assert _files(registry, 1) == files_of("dtd", 7)
    assert registry.read(registry.resolve("dtd@1")) != Registry.open(tmp_path / "moved").read(old)


def test_one_that_came_back_goes_on(registry: Registry, tmp_path: Path) -> None:
    registry.root.rename(tmp_path / "moved")
    with pytest.raises(InputError):
        registry.tasks()
    (tmp_path / "moved").rename(registry.root)
    assert registry.rollback("dtd", expected=2).moved
    assert _is_sound(registry)


def test_moving_it_under_a_reader_gives_whole_versions_or_errors(
    registry: Registry, tmp_path: Path
) -> None:
    expected = {number: files_of("dtd", number - 1) for number in (1, 2)}
    over = threading.Event()

    def read() -> tuple[int, int]:
        good = failed = 0
        while not over.is_set():
            for number, files in expected.items():
                try:
                    assert _files(registry, number) == files
                    good += 1
                except AdapterBankError:
                    failed += 1
        return good, failed

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for _ in range(60):
            registry.root.rename(tmp_path / "moved")
            over.wait(0.002)
            (tmp_path / "moved").rename(registry.root)
            over.wait(0.002)
        over.set()
        good, failed = reader.result()
    assert good > 0
    assert failed > 0


# --- links ---------------------------------------------------------------------------------------


@pytest.fixture
def linked(registry: Registry, tmp_path: Path) -> Registry:
    (tmp_path / "link").symlink_to(registry.root)
    return Registry.open(tmp_path / "link")


def test_what_is_written_through_a_link_is_read_directly_and_back(
    registry: Registry, linked: Registry
) -> None:
    assert linked.register("dtd", files_of("dtd", 2)).version == 3
    assert registry.promote("dtd@3", expected=2).moved
    assert linked.rollback("dtd", expected=3).after.version == 2
    assert registry.aliases("dtd") == linked.aliases("dtd") == {"champion": 2, "previous": 1}
    assert registry.history("dtd") == linked.history("dtd")
    assert _is_sound(registry)
    assert _is_sound(linked)


def test_the_lock_excludes_whoever_comes_the_other_way(
    registry: Registry, linked: Registry
) -> None:
    for holder, other in ((registry, linked), (linked, registry)):
        with (
            durable.locked(holder.root / ".lock"),
            pytest.raises(ConflictError, match="held by another process"),
            durable.locked(other.root / ".lock", timeout_s=0.02),
        ):
            pass


def test_of_two_ways_to_one_registry_each_step_has_one_winner(
    registry: Registry, linked: Registry
) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def race(mine: Registry) -> list[int]:
        won = []
        for step in range(20):
            held, target = 2 - step % 2, 1 + step % 2
            barrier.wait()
            try:
                mine.promote(f"dtd@{target}", expected=held)
                won.append(step)
            except ConflictError:
                pass
            barrier.wait()
        return won

    with ThreadPoolExecutor(2) as pool:
        direct, through = pool.map(race, (registry, linked))
    assert sorted([*direct, *through]) == list(range(20))
    assert _is_sound(registry)


def test_a_link_that_is_turned_leads_to_the_other_registry(
    registry: Registry, linked: Registry, tmp_path: Path
) -> None:
    other = _fill(new_registry(tmp_path / "other"))
    before = registry.history("dtd")
    linked.root.unlink()
    linked.root.symlink_to(other.root)
    assert linked.rollback("dtd", expected=2).moved
    assert other.aliases("dtd") == {"champion": 1}
    assert registry.history("dtd") == before


# --- clocks --------------------------------------------------------------------------------------

JUMPS = {
    "backwards": ["2026-06-01T00:00:00Z", "2019-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
    "forwards": ["2026-06-01T00:00:00Z", "2099-01-01T00:00:00Z", "9999-12-31T23:59:59Z"],
    "not at all": ["2026-06-01T00:00:00Z"] * 3,
    "there and back": ["2026-06-01T00:00:00Z", "2099-01-01T00:00:00Z", "2026-06-01T00:00:00Z"],
}
each_clock = pytest.mark.parametrize("times", JUMPS.values(), ids=JUMPS.keys())


def _clock(times: list[str]) -> Iterator[str]:
    while True:
        yield from times


@each_clock
def test_history_is_in_the_order_of_steps_whatever_the_clock_says(
    tmp_path: Path, times: list[str]
) -> None:
    clock = _clock(times)
    registry = _fill(Registry.open(new_registry(tmp_path).root, clock=lambda: next(clock)))
    registry.register("dtd", files_of("dtd", 2))
    registry.promote("dtd@3", expected=2)
    registry.rollback("dtd")
    reopened = Registry.open(tmp_path)
    history = reopened.history("dtd")
    assert [event.step for event in history] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.time for event in history] == (times * 3)[:7]
    assert [(event.action, event.to_version) for event in history][3:] == [
        ("promote", 2), ("register", 3), ("promote", 3), ("rollback", 2),
    ]  # fmt: skip
    assert reopened.aliases("dtd") == {"champion": 2, "previous": 1}
    assert reopened.rollback("dtd").after.version == 1  # by steps, not by times
    assert reopened.verify() == ()


@pytest.mark.parametrize("time", [0, 4_000_000_000], ids=["1970", "2096"])
def test_what_is_waste_is_not_told_by_the_age_of_files(registry: Registry, time: int) -> None:
    left = registry.root / "adapters" / "dtd" / ".tmp-left"
    left.mkdir()
    for path in registry.root.rglob("*"):
        os.utime(path, (time, time))
    (waste,) = collect(registry.root, lambda *_: None, dry_run=False)
    assert waste.path == left
    assert _is_sound(registry)


@pytest.fixture(scope="module")
def jumped(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Return a bank whose clock went back by years, forwards by more, and was mended."""
    root = tmp_path_factory.mktemp("jumped")
    write_params(root)
    served.new_registry(root / "registry")
    for task, seed, time in (
        (TASK, 1, "2026-06-01T00:00:00Z"),
        (TASK, 2, "2018-01-01T00:00:00Z"),
        (TASK, 3, "2099-01-01T00:00:00Z"),
        (OTHER, 4, "2026-06-01T00:00:00Z"),
    ):
        clock = partial(str, time)
        served.publish(Registry.open(root / "registry", clock=clock), task, seed)
    return Bank.open(root)


@pytest.mark.parametrize(
    ("before", "audited"),
    [
        ("colours@2", ["colours@1"]),  # numbers tell, though it was published "later"
        ("colours@3", ["bugs@1", "colours@1", "colours@2"]),
        ("2019-01-01", ["colours@2"]),  # a time means what history states
        ("2026-06-02", ["bugs@1", "colours@1", "colours@2"]),
        ("2200-01-01", ["bugs@1", "colours@1", "colours@2", "colours@3"]),
    ],
)
def test_an_audit_goes_by_numbers_before_a_version_and_by_history_before_a_time(
    jumped: Bank, before: str, audited: list[str]
) -> None:
    report = audit(jumped, before=before)
    assert report.ok
    assert [one.name for one in report.versions] == audited
