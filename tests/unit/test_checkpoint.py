"""Checkpoints: one that is stopped goes on to the same bits, and from no doubtful state."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adapterbank.config.bank import TrainConfig
from adapterbank.errors import AdapterBankError
from adapterbank.methods.base import Adapter
from adapterbank.records import Score
from adapterbank.training.checkpoint import (
    Checkpoint,
    Checkpointer,
    identify,
    restore,
    states_of,
)
from adapterbank.training.loop import TrainResult, train
from adapterbank.training.recipes import RECIPES as NAMED
from adapterbank.training.recipes import Recipe, build_optimizer
from adapterbank.training.sinks import Epoch, Sink
from tests import tiny, toys

DATA = toys.task()
EPOCHS, STEPS = 4, 3  # 24 images by 8
RECIPES = {
    "adamw": replace(toys.RECIPE, weight_decay=0.01, head="ridge"),
    "relative": NAMED["default"],  # rates are of the start, which going on does not see
    "sgd": replace(toys.RECIPE, optimizer="sgd", learning_rate=0.05, head="ridge"),
}
IDENTITY = identify({"test": True})

each_method = pytest.mark.parametrize("method", ["vapt", "vpt_deep"])
each_optimizer = pytest.mark.parametrize("optimizer", RECIPES)


class Stopped(Exception):
    """Stands for whatever ends a process."""


class Stop:
    """A sink that stops the training after a step or after an epoch was kept."""

    def __init__(self, *, step: int | None = None, epoch: int | None = None) -> None:
        self._step, self._epoch = step, epoch
        self.first: int | None = None  # step that was seen first

    def step(self, done: int, total: int) -> None:
        assert total == EPOCHS * STEPS
        self.first = self.first or done
        if done == self._step:
            raise Stopped

    def epoch(self, epoch: Epoch) -> None:
        if epoch.number == self._epoch:
            raise Stopped


def run(
    method: str, recipe: Recipe, directory: Path | None = None, sinks: Sequence[Sink] = ()
) -> TrainResult:
    """Train as a new process does: nothing but the checkpoint is left of the last."""
    model = tiny.backbone("plain")
    return train(
        model,
        DATA,
        toys.start(method, model),
        recipe,
        TrainConfig(epochs=EPOCHS, batch_size=8),
        seed=3,
        sinks=sinks,
        checkpoint=None if directory is None else Checkpointer.open(directory, IDENTITY),
    )


def told(result: TrainResult) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in result.epochs]


def bits(adapter: Adapter) -> dict[str, bytes]:
    return {name: t.detach().numpy().tobytes() for name, t in adapter.state_dict().items()}


def assert_same(one: TrainResult, other: TrainResult) -> None:
    assert bits(one.adapter) == bits(other.adapter)
    assert told(one) == told(other)
    assert (one.val.score, one.val.loss) == (other.val.score, other.val.loss)


def sample(taken: int = 3, seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    score = Score(correct=1, total=3)
    epoch = Epoch(
        number=1, loss=0.1 + seed, train=score, val=score, val_loss=1 / 3, rate=0.7, seconds=1e-3
    )

    def draw() -> Tensor:
        return torch.randn(2, 3, generator=generator)

    return Checkpoint(
        taken=taken,
        epochs=(epoch,),
        adapter={"alpha": draw(), "head.weight": draw()},
        optimizer={"head.weight": {"exp_avg": draw(), "step": torch.tensor(3.0)}},
        generators={"order": generator.get_state()[:16].clone()},
    )


def assert_equal(one: Checkpoint, other: Checkpoint | None) -> None:
    assert other is not None
    assert (one.taken, one.epochs) == (other.taken, other.epochs)
    assert one.optimizer.keys() == other.optimizer.keys()
    pairs = [(one.adapter, other.adapter), (one.generators, other.generators)]
    pairs += [(one.optimizer[name], other.optimizer[name]) for name in one.optimizer]
    for first, second in pairs:
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert tensor.dtype == second[name].dtype
            assert torch.equal(tensor, second[name]), name


# --- going on gives the bits of never having stopped ---------------------------------------------


@each_method
@each_optimizer
def test_stopping_after_any_epoch_and_going_on_changes_no_bit(
    method: str, optimizer: str, tmp_path: Path
) -> None:
    recipe = RECIPES[optimizer]
    whole = run(method, recipe)
    for number in range(1, EPOCHS + 1):
        folder = tmp_path / str(number)
        with pytest.raises(Stopped):
            run(method, recipe, folder, (Stop(epoch=number),))
        rest = Stop()
        assert_same(run(method, recipe, folder, (rest,)), whole)
        assert rest.first == (number * STEPS + 1 if number < EPOCHS else None)


@each_method
@each_optimizer
@given(steps=st.lists(st.integers(1, EPOCHS * STEPS), min_size=1, max_size=4))
@settings(max_examples=6)
def test_stopping_at_any_steps_any_number_of_times_changes_no_bit(
    method: str, optimizer: str, steps: list[int]
) -> None:
    recipe = RECIPES[optimizer]
    with tempfile.TemporaryDirectory() as folder:
        for step in sorted(steps):
            with pytest.raises(Stopped):
                run(method, recipe, Path(folder), (Stop(step=step),))
        assert_same(run(method, recipe, Path(folder)), run(method, recipe))


def test_keeping_checkpoints_changes_no_bit(tmp_path: Path) -> None:
    assert_same(run("vapt", RECIPES["adamw"], tmp_path), run("vapt", RECIPES["adamw"]))


def test_the_rate_warms_up_once_in_a_schedule_by_epochs(tmp_path: Path) -> None:
    recipe = replace(RECIPES["sgd"], schedule="epoch", warm_up=0.5)
    with pytest.raises(Stopped):
        run("vapt", recipe, tmp_path, (Stop(step=5),))
    assert_same(run("vapt", recipe, tmp_path), run("vapt", recipe))


@each_optimizer
def test_a_restored_optimiser_has_the_state_by_name_and_shares_no_memory(optimizer: str) -> None:
    adapter = toys.start("vapt", tiny.backbone("plain"))
    first, second = (build_optimizer(RECIPES[optimizer], adapter, 8) for _ in range(2))
    for parameter in adapter.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    first.step()
    states = states_of(first, adapter)
    assert states.keys() == dict(adapter.named_parameters()).keys()
    restore(second, adapter, states)
    kept = {name: {k: t.clone() for k, t in state.items()} for name, state in states.items()}
    assert states_of(second, adapter).keys() == states.keys()
    second.step()
    for name, state in kept.items():
        for key, tensor in state.items():
            assert torch.equal(states[name][key], tensor), (name, key)


def test_a_closed_form_keeps_nothing(tmp_path: Path) -> None:
    run("linear", replace(toys.RECIPE, gradient=False, head="ridge"), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


# --- what is kept, and what is not gone on from --------------------------------------------------


def test_what_is_saved_is_found_with_the_runs_id(tmp_path: Path) -> None:
    keeper = Checkpointer.open(tmp_path / "new" / "folder", IDENTITY)
    assert (keeper.state, keeper.run_id) == (None, None)
    keeper.run_id = "abc"
    keeper.save(sample(seed=1))
    keeper.save(sample(seed=2))
    again = Checkpointer.open(tmp_path / "new" / "folder", IDENTITY)
    assert_equal(sample(seed=2), again.state)
    assert again.run_id == "abc"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [
        "training.safetensors"
    ]
    again.discard()
    again.discard()  # twice is once
    assert not (tmp_path / "new" / "folder").exists()
    assert Checkpointer.open(tmp_path / "new" / "folder", IDENTITY).state is None


def test_a_checkpoint_of_another_training_is_passed_over_with_a_note(tmp_path: Path) -> None:
    Checkpointer.open(tmp_path, IDENTITY).save(sample())
    notes: list[str] = []
    other = Checkpointer.open(tmp_path, identify({"test": False}), notes.append)
    assert (other.state, other.run_id) == (None, None)
    (note,) = notes
    assert note.endswith("other data, settings or code: starting from the beginning")
    other.save(sample(seed=5))  # takes its place
    assert Checkpointer.open(tmp_path, IDENTITY).state is None


def test_no_flipped_bit_is_gone_on_from(tmp_path: Path) -> None:
    Checkpointer.open(tmp_path, IDENTITY).save(sample())
    path = tmp_path / "training.safetensors"
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = {*range(0, header, 3), *range(header, len(whole))}
    for place in sorted(places):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(torch.randint(8, (), generator=generator))
        path.write_bytes(changed)
        notes: list[str] = []
        assert Checkpointer.open(tmp_path, IDENTITY, notes.append).state is None, place
        assert len(notes) == 1
        assert "is damaged" in notes[0], place


@pytest.mark.parametrize("content", [b"", b"12345678", b"\x80\x04N.", b"{}"], ids=repr)
def test_what_is_no_checkpoint_is_passed_over_with_a_note(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training.safetensors").write_bytes(content)
    notes: list[str] = []
    assert Checkpointer.open(tmp_path, IDENTITY, notes.append).state is None
    assert "is damaged" in notes[0]


def test_a_truncated_or_linked_checkpoint_is_passed_over(tmp_path: Path) -> None:
    Checkpointer.open(tmp_path, IDENTITY).save(sample())
    path = tmp_path / "training.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert Checkpointer.open(tmp_path, IDENTITY).state is None, length
    (tmp_path / "elsewhere").write_bytes(whole)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert Checkpointer.open(tmp_path, IDENTITY).state is None


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(AdapterBankError, match="Cannot write"):
        Checkpointer.open(tmp_path / "work", IDENTITY).save(sample())


def test_every_part_of_a_training_is_in_its_identity_in_any_order() -> None:
    parts = {"seed": 1, "config": {"epochs": 2, "rate": 0.5}, "code": "abc"}
    changes = ({"seed": 2}, {"config": {"epochs": 3, "rate": 0.5}}, {"code": ""}, {"more": None})
    identities = {identify(parts), *(identify({**parts, **change}) for change in changes)}
    assert len(identities) == 5
    assert identify(dict(reversed(parts.items()))) == identify(parts)


# --- killed while it is written ------------------------------------------------------------------

MORTAL = """
import sys
from pathlib import Path
from adapterbank.training.checkpoint import Checkpointer
from tests.mortal import survives
from tests.unit.test_checkpoint import IDENTITY, assert_equal, sample

folder = Path(sys.argv[1])

def points(work, check):
    last = 0
    while not survives(work, last):
        check()
        last += 1
    return last

def is_old_or_new():
    found = Checkpointer.open(folder, IDENTITY, notes.append).state
    assert not notes
    assert [path.name for path in folder.iterdir()] == ["training.safetensors"]
    assert_equal(sample(found.taken, found.taken), found)
    seen.add(found.taken)
    Checkpointer.open(folder, IDENTITY).save(sample(1, 1))

notes, seen = [], set()
keeper = Checkpointer.open(folder, IDENTITY)
first = points(lambda: keeper.save(sample(1, 1)), lambda: None)
count = points(lambda: keeper.save(sample(2, 2)), is_old_or_new)
assert seen == {1, 2}, seen
ends = points(keeper.discard, lambda: Checkpointer.open(folder, IDENTITY, notes.append))
assert not notes and not folder.exists()
print(first, count, ends)
"""


@pytest.mark.slow
def test_one_killed_at_any_write_flush_or_rename_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    first, count, ends = map(int, done.stdout.split())
    assert min(first, count) > 8
    assert ends >= 2  # a folder without its file is left for the second half
