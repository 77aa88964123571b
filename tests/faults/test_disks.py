"""Full and read-only disks: one clear error, the old state whole and served, no space kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from adapterbank.__main__ import main
from adapterbank.bank.bank import Bank
from adapterbank.bank.remove_task import remove_task
from adapterbank.continual.audit import audit
from adapterbank.errors import AdapterBankError
from adapterbank.inference.predictor import Predictor
from adapterbank.pipeline.backbone import fetch_backbone
from adapterbank.registry.collect import collect
from adapterbank.training.checkpoint import Checkpoint, Checkpointer
from tests.cli_samples import draw
from tests.kept_bank import OTHER, TASK, content_of, files_of, leave_mirrors_out, make_kept_bank

REFUSED = r"^Cannot write "
PAGE = 4096  # bytes: what a tmpfs gives to a file at least

Refusing = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Disk:
    """A place for a bank, which takes no more than some bytes while it is refusing."""

    folder: Path
    refusing: Refusing
    deletes: bool  # while it is refusing


# --- disks ---------------------------------------------------------------------------------------


def full(tmp_path: Path) -> Iterator[Disk]:
    """Give a small disk of its own that can be filled."""
    with _mounted(tmp_path) as folder:

        @contextmanager
        def refusing(spare: int) -> Iterator[None]:
            filler = folder / "filler"
            with filler.open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(PAGE))
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017  # the loop ends by it
                stream.truncate(stream.tell() - spare)
            yield
            filler.unlink()

        yield Disk(folder, refusing, deletes=True)


def read_only(tmp_path: Path) -> Iterator[Disk]:
    """Give a disk of its own that can be made read-only."""
    with _mounted(tmp_path) as folder:

        @contextmanager
        def refusing(_: int) -> Iterator[None]:
            _run("mount", "-o", "remount,ro", str(folder))
            try:
                yield
            finally:
                _run("mount", "-o", "remount,rw", str(folder))

        yield Disk(folder, refusing, deletes=False)


def small_files(tmp_path: Path) -> Iterator[Disk]:
    """Stand in for a full disk anywhere: the kernel lets no file of this process grow."""

    @contextmanager
    def refusing(spare: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (spare, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    yield Disk(tmp_path, refusing, deletes=True)


def closed_folders(tmp_path: Path) -> Iterator[Disk]:
    """Stand in for a read-only disk: folders and files that this user may not write to."""
    (tmp_path / "closed").mkdir(mode=0o555)
    if os.access(tmp_path / "closed", os.W_OK):
        pytest.skip("this user may write to any folder; the read-only tmpfs is for root")

    @contextmanager
    def refusing(_: int) -> Iterator[None]:
        paths = [path for path in (tmp_path, *tmp_path.rglob("*")) if not path.is_symlink()]
        modes = {path: path.stat().st_mode for path in paths}
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode)

    yield Disk(tmp_path, refusing, deletes=False)


@contextmanager
def _mounted(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "adapterbank-tests", str(folder)],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))  # weights may still be mapped into memory


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


DISKS: dict[str, Callable[[Path], Iterator[Disk]]] = {
    "full": full, "read-only": read_only, "small files": small_files,
    "closed folders": closed_folders,
}  # fmt: skip


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    yield from DISKS[request.param](tmp_path)


# --- a bank on them ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank that nobody changes, with a checkpoint of a training."""
    bank = make_kept_bank(tmp_path_factory.mktemp("kept") / "bank")
    draw(bank.root / "image.png", (40, 40, 200), 1)
    _save_checkpoint(bank, 1)
    return bank.root


@pytest.fixture
def bank(kept: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Bank:
    leave_mirrors_out(monkeypatch)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    shutil.copytree(kept, disk.folder / "bank")
    return Bank.open(disk.folder / "bank")


def _save_checkpoint(bank: Bank, taken: int) -> None:
    adapter = {"head.weight": torch.full((64, 64), float(taken))}
    kept = Checkpoint(taken=taken, epochs=(), adapter=adapter, optimizer={}, generators={})
    Checkpointer.open(bank.checkpoint(TASK), "a training").save(kept)


def _rename_backbone(bank: Bank) -> None:
    record = bank.registry.backbone()
    bank.registry.set_backbone(replace(record, uri=f"{record.uri}&again=1"))


OPERATIONS: dict[str, Callable[[Bank], object]] = {
    "register": lambda bank: bank.registry.register_directory(bank.root / "new", task=TASK),
    "register the first": lambda bank: bank.registry.register("pets", files_of("pets", 5)),
    "promote": lambda bank: bank.registry.promote(f"{TASK}@1", expected=2),
    "rollback": lambda bank: bank.registry.rollback(TASK, expected=2),
    "retire": lambda bank: bank.registry.retire(TASK),
    "record_verdict": lambda bank: bank.registry.record_verdict(f"{TASK}@1", {"ok": False}),
    "set_backbone": _rename_backbone,
    "backbone fetch": lambda bank: fetch_backbone(bank, force=True),
    "task remove": lambda bank: remove_task(bank, TASK),
    "checkpoint": lambda bank: _save_checkpoint(bank, 2),
    "audit": audit,
}
SAME = {"backbone fetch"}  # writes the bytes there were


def _answer(bank: Bank) -> tuple[object, ...]:
    (answer,) = Predictor(bank.registry).predict([bank.root / "image.png"], task=TASK)
    return answer.digest, answer.label, answer.probability, answer.top_k


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_cannot_be_written_says_so_and_leaves_all_as_it_was(
    bank: Bank, disk: Disk, name: str
) -> None:
    before, answer, registry = content_of(bank.root), _answer(bank), bank.registry
    history, operation = registry.history(TASK), OPERATIONS[name]
    with disk.refusing(0):
        with pytest.raises(AdapterBankError, match=REFUSED) as caught:
            operation(bank)
        assert (type(caught.value), caught.value.exit_code) == (AdapterBankError, 1)
        assert "what was published before is intact" in caught.value.message
        assert caught.value.fix is not None
        assert content_of(bank.root) == before  # no temporary file keeps the space
        assert registry.verify() == ()
        assert registry.history(TASK) == history
        assert all(registry.read(version) for version in registry.versions(TASK))
        assert _answer(bank) == answer
    operation(bank)
    assert registry.verify() == ()
    assert (content_of(bank.root) == before) == (name in SAME)


@pytest.mark.parametrize("spare", [1, 3, 6], ids="{} pages left".format)
def test_a_version_that_fits_in_part_takes_no_space_at_all(
    bank: Bank, disk: Disk, spare: int
) -> None:
    before = content_of(bank.root)
    with disk.refusing(spare * PAGE if disk.folder.name == "disk" else spare * 300):
        with pytest.raises(AdapterBankError, match=REFUSED):
            OPERATIONS["register"](bank)
        assert content_of(bank.root) == before
    OPERATIONS["register"](bank)
    assert len(bank.registry.versions(TASK)) == 3
    assert bank.registry.verify() == ()


def test_waste_can_be_collected_wherever_files_can_be_deleted(bank: Bank, disk: Disk) -> None:
    root, before = bank.registry.root, content_of(bank.root)
    half = root / "adapters" / TASK / ".tmp-half"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(bytes(10 * PAGE))
    with disk.refusing(0):
        if disk.deletes:
            (waste,) = collect(root, lambda *_: None, dry_run=False)
            assert waste.size_bytes == 10 * PAGE
            assert not half.exists()
        else:
            with pytest.raises(AdapterBankError, match=REFUSED):
                collect(root, lambda *_: None, dry_run=False)
            assert [problem.path for problem in bank.registry.verify()] == [half]
    collect(root, lambda *_: None, dry_run=False)
    assert content_of(bank.root) == before


# --- the command line ----------------------------------------------------------------------------

WRITING = [f"promote {TASK}@1", f"rollback {TASK}", f"task remove {TASK} --yes", "register {}/new"]
READING = ["list", "verify", f"history {TASK}", f"predict --task {OTHER} {{}}/image.png"]


def _words(bank: Bank, line: str) -> list[str]:
    return [*line.format(bank.root).split(), "--bank", str(bank.root)]


@pytest.mark.parametrize("line", WRITING)
def test_a_command_that_cannot_write_ends_with_1_and_no_traceback(
    bank: Bank, disk: Disk, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk.refusing(0):
        code, shown = main(_words(bank, line)), capsys.readouterr()
    assert code == 1
    assert "Cannot write " in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert main(_words(bank, line)) == 0


@pytest.mark.parametrize("line", READING)
def test_a_command_that_only_reads_needs_no_space(
    bank: Bank, disk: Disk, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(bank, line)) == 0
    before = capsys.readouterr()  # said where there was space
    with disk.refusing(0):
        assert main(_words(bank, line)) == 0
        shown = capsys.readouterr()
    assert shown.out == before.out != ""


@pytest.mark.parametrize("line", [WRITING[0], WRITING[-1]], ids=["promote", "register"])
def test_the_program_itself_stops_cleanly_where_no_file_can_grow(
    kept: Path, tmp_path: Path, line: str
) -> None:
    bank = Bank.open(shutil.copytree(kept, tmp_path / "bank"))
    before = content_of(bank.root)
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", sys.executable, "-m", "adapterbank",  # noqa: S607
         *_words(bank, line)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "Cannot write " in done.stderr
    assert "Traceback" not in done.stderr
    assert content_of(bank.root) == before
