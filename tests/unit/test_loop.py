"""Training: repeatable to the bit, without a trace on the backbone, and never silently broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from adapterbank.config.bank import TrainConfig
from adapterbank.errors import TrainingDiverged
from adapterbank.methods.base import Adapter
from adapterbank.training import loop
from adapterbank.training.evaluation import evaluate, extract_features
from adapterbank.training.loop import TrainResult, start_head, train
from adapterbank.training.recipes import RECIPES, Recipe
from adapterbank.training.ridge import fit_ridge
from adapterbank.training.sinks import Epoch, Sink
from tests import tiny, toys

DATA = toys.task()
STEPS = 3  # 24 images by 8
State = dict[str, Tensor]

each_prompted = pytest.mark.parametrize("method", ["vapt", "vpt_deep"])


def run(
    adapter: Adapter,
    recipe: Recipe = toys.RECIPE,
    *,
    epochs: int = 2,
    batch_size: int = 8,
    seed: int = 0,
    sinks: tuple[Sink, ...] = (),
) -> TrainResult:
    settings = TrainConfig(epochs=epochs, batch_size=batch_size)
    return train(tiny.backbone("plain"), DATA, adapter, recipe, settings, seed=seed, sinks=sinks)


def start(method: str = "vapt", seed: int = 0) -> Adapter:
    return toys.start(method, tiny.backbone("plain"), seed)


def state(adapter: Adapter) -> State:
    return {name: tensor.clone() for name, tensor in adapter.state_dict().items()}


def same(one: State, other: State) -> bool:
    """Whether two states are equal to the bit, NaN too."""
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.int32), other[name].view(torch.int32)) for name in one
    )


@dataclass
class Told:
    """A sink that keeps what it is told, and may act on it."""

    steps: list[tuple[int, int]] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    on_step: Callable[[int], None] = lambda _: None
    on_epoch: Callable[[int], None] = lambda _: None

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        self.on_step(done)

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        self.on_epoch(epoch.number)


@each_prompted
def test_the_same_seed_gives_the_same_bits_whatever_the_global_generator(method: str) -> None:
    states = []
    for unrelated in (1, 2):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(unrelated)
            before = torch.get_rng_state()
            states.append(state(run(start(method)).adapter))
            assert torch.equal(torch.get_rng_state(), before)
    assert same(*states)


@each_prompted
def test_another_seed_gives_another_adapter(method: str) -> None:
    assert not same(state(run(start(method)).adapter), state(run(start(method), seed=1).adapter))


def test_the_backbone_is_unchanged_to_the_bit() -> None:
    model = tiny.backbone("plain")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(start())
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name, p in model.named_parameters() if p.grad is not None] == []


@each_prompted
def test_training_learns_a_task_that_can_be_learned(method: str) -> None:
    epochs = run(start(method), epochs=6).epochs
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    assert epochs[-1].val_loss < epochs[0].val_loss


@each_prompted
def test_under_autocast_training_goes_where_it_goes_in_float32(method: str) -> None:
    before, exact = state(start(method)), run(start(method), epochs=8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(start(method), epochs=8)
    # bfloat16 has 8 bits: 0.06 was seen, and 1.0 where steps saw the parameters of the first one.
    ways = {
        name: float((tensor - state(exact.adapter)[name]).norm())
        / float((state(exact.adapter)[name] - before[name]).norm())
        for name, tensor in state(rounded.adapter).items()
    }
    assert max(ways.values()) < 0.25, ways
    assert rounded.val.loss == pytest.approx(exact.val.loss, abs=0.01)
    assert rounded.val.logits.dtype == torch.float32


@pytest.mark.parametrize("method", ["vapt", "vpt_deep", "vpt_shallow"])
def test_twenty_steps_of_the_default_recipe_leave_every_tensor_near_its_start(method: str) -> None:
    begun = start(method)
    start_head(tiny.backbone("plain"), DATA, begun)
    before = state(begun)
    recipe = replace(RECIPES["default"], head="as_built")
    after = state(run(begun, recipe, epochs=5, batch_size=6).adapter)
    moved = {
        name: float((after[name] - tensor).square().mean() / tensor.square().mean()) ** 0.5
        for name, tensor in before.items()
        if tensor.any()
    }
    # AdamW moves a number by its rate at most, or little more: 0.03 of the scale in all.
    assert max(moved.values()) < 0.05, moved
    assert max(value for name, value in moved.items() if name.startswith("head.")) < 0.01, moved


@each_prompted
def test_training_moves_every_parameter(method: str) -> None:
    # Two steps of the whole rate at least: behind a start of zero the first gradient is zero.
    before, after = state(start(method)), state(run(start(method)).adapter)
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_sinks_are_told_of_every_step_and_epoch_in_order() -> None:
    sinks = (Told(), Told())
    result = run(start(), epochs=4, sinks=sinks)
    for sink in sinks:
        assert sink.steps == [(done, 4 * STEPS) for done in range(1, 4 * STEPS + 1)]
        assert tuple(sink.epochs) == result.epochs
    assert [epoch.number for epoch in result.epochs] == [1, 2, 3, 4]
    assert {epoch.train.total for epoch in result.epochs} == {len(DATA.train)}
    assert {epoch.val.total for epoch in result.epochs} == {len(DATA.val)}
    rates = [epoch.rate for epoch in result.epochs]
    assert rates == [toys.RECIPE.rate(STEPS * n - 1, STEPS, 4) for n in (1, 2, 3, 4)]


def test_an_epochs_loss_is_the_mean_over_images_though_the_last_batch_is_smaller() -> None:
    told, adapter = Told(), start("linear")  # no dropout
    standing_still = replace(toys.RECIPE, schedule="epoch", warm_up=1.0)  # rate 0 at first
    (epoch,) = run(adapter, standing_still, epochs=1, batch_size=10, sinks=(told,)).epochs
    assert told.steps == [(1, 3), (2, 3), (3, 3)]
    judged = evaluate(tiny.backbone("plain"), DATA.train, adapter.fold())
    assert epoch.train == judged.score
    assert epoch.loss == pytest.approx(judged.loss, rel=1e-5)  # fp32 sums in other parts


def test_the_result_is_the_last_epochs_adapter_judged_on_validation_images() -> None:
    result = run(start())
    judged = evaluate(tiny.backbone("plain"), DATA.val, result.adapter.fold())
    assert result.val.score == judged.score
    # Another computation than the one of the last epoch: batched otherwise, rounded otherwise.
    assert result.val.loss == pytest.approx(judged.loss, rel=1e-5)
    assert result.epochs[-1].val_loss == pytest.approx(judged.loss, rel=1e-5)


def test_test_images_are_never_looked_at() -> None:
    results = []
    for test in (DATA.test, toys.split(5, seed=99)):
        data = replace(DATA, test=test)
        settings = TrainConfig(epochs=1, batch_size=8)
        trained = train(tiny.backbone("plain"), data, start(), toys.RECIPE, settings, seed=0)
        results.append(state(trained.adapter))
    assert same(*results)


def test_a_closed_form_takes_no_step_and_answers_as_ridge_does() -> None:
    told = Told()
    result = run(start("linear"), RECIPES["closed_form"], sinks=(told,))
    assert (result.epochs, told.steps, told.epochs) == ((), [], [])
    model = tiny.backbone("plain")
    train_features = extract_features(model, DATA.train)
    ridge = fit_ridge(train_features, DATA.train.labels, 3)
    predicted = ridge.scores(extract_features(model, DATA.val)).argmax(1)
    assert result.val.score.correct == int((predicted == DATA.val.labels).sum())


def test_a_trained_head_starts_from_ridge_softened_by_how_many_steps_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "USUAL_TEMPERATURE", 1.0)  # softer than what these images ask for
    few, many, fitted = start(), start(), start()
    still = Recipe(learning_rate=0.0, full_rate_steps=24)
    run(few, still, epochs=4)  # 12 steps
    run(many, still, epochs=8)
    model = tiny.backbone("plain")
    ridge = fit_ridge(extract_features(model, DATA.train, fitted.fold()), DATA.train.labels, 3)
    start_head(model, DATA, fitted)
    torch.testing.assert_close(fitted.head.weight, ridge.weight * ridge.temperature)
    torch.testing.assert_close(many.head.weight, ridge.weight)
    torch.testing.assert_close(few.head.weight, ridge.weight * ridge.temperature**0.875)


def test_a_head_as_built_stays_as_built_at_a_rate_of_zero() -> None:
    before = state(start())
    recipe = replace(toys.RECIPE, schedule="epoch", warm_up=1.0)  # rate 0 in the first epoch
    assert same(before, state(run(start(), recipe, epochs=1).adapter))


@pytest.fixture(params=["poisoned head", "exploding rate"])
def diverging(request: pytest.FixtureRequest) -> Iterator[tuple[Adapter, Recipe]]:
    adapter = start()
    if request.param == "poisoned head":
        with torch.no_grad():
            adapter.head.weight[0, 0] = float("nan")
        yield adapter, toys.RECIPE
    else:
        # finite at once, overflowing in the second step
        yield adapter, replace(toys.RECIPE, optimizer="sgd", learning_rate=1e30, warm_up=0.0)


def test_divergence_in_the_first_epoch_stops_with_the_start_as_last_good(
    diverging: tuple[Adapter, Recipe],
) -> None:
    adapter, recipe = diverging
    before = state(adapter)
    with pytest.raises(TrainingDiverged, match="diverged in epoch 1, step") as caught:
        run(adapter, recipe)
    assert caught.value.last_good is not None
    assert same(dict(caught.value.last_good), before)
    assert caught.value.fix is not None
    assert "learning_rate" in caught.value.fix


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_divergence_later_keeps_the_state_after_the_last_whole_epoch(poison: float) -> None:
    adapter, kept = start(), {}

    def spoil(done: int) -> None:
        if done == 2 * STEPS + 1:
            with torch.no_grad():
                adapter.head.bias[0] = poison

    told = Told(on_step=spoil, on_epoch=lambda _: kept.update(state(adapter)))
    with pytest.raises(TrainingDiverged, match="diverged in epoch 3, step 8") as caught:
        run(adapter, epochs=5, sinks=(told,))
    assert caught.value.last_good is not None
    assert same(dict(caught.value.last_good), kept)
    assert [epoch.number for epoch in told.epochs] == [1, 2]


@pytest.mark.parametrize("epochs", [1, 2])
def test_divergence_in_the_last_step_of_an_epoch_is_no_whole_epoch(epochs: int) -> None:
    # One step an epoch, which overflows: no training loss is taken of what it leaves.
    huge = replace(toys.RECIPE, optimizer="sgd", learning_rate=1e38)
    recipe = replace(huge, schedule="epoch", warm_up=0.0)
    adapter = start()
    before = state(adapter)
    with pytest.raises(TrainingDiverged, match="last step of epoch 1") as caught:
        run(adapter, recipe, epochs=epochs, batch_size=24)
    assert caught.value.last_good is not None
    assert same(dict(caught.value.last_good), before)


def test_an_interrupt_goes_through() -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(start(), sinks=(Told(on_step=interrupt),))
