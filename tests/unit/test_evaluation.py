"""Counting right answers: the same as scikit-learn's, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss

from adapterbank.backbones import base
from adapterbank.backbones.base import slices
from adapterbank.data.images import normalise
from adapterbank.model.forward import features, forward
from adapterbank.training.evaluation import batches, evaluate, extract_features, score
from tests import tiny, toys

SPLIT = toys.split(70, seed=5)  # more than one batch of evaluation, and not a multiple


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), classes=st.integers(2, 6))
def test_counts_and_loss_are_those_of_scikit_learn(seed: int, count: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    found = score(logits, labels)
    every = list(range(classes))
    expected = confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), labels=every)
    np.testing.assert_array_equal(found.confusion.numpy(), expected)
    assert (found.score.correct, found.score.total) == (int(np.trace(expected)), count)
    probabilities = logits.double().softmax(1).numpy()
    # float32 against float64
    assert found.loss == pytest.approx(log_loss(labels.numpy(), probabilities, labels=every), 1e-4)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_batches_hold_every_image_once_in_order_whatever_their_size(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    model = tiny.backbone("plain")
    monkeypatch.setattr(base, "CACHED_BYTES", rows * bytes_of_a_row(model))
    told: list[tuple[int, int]] = []
    parts = list(batches(model, SPLIT, lambda done, total: told.append((done, total))))
    assert max(map(len, parts)) <= rows
    assert torch.equal(torch.cat(parts), normalise(SPLIT.images, model.spec))
    assert told == [(64, 70), (70, 70)]


def bytes_of_a_row(model: base.Backbone) -> int:
    tokens = model.traits.patches + model.traits.prefix_tokens
    return tokens * 4 * model.traits.width * 4  # an MLP's hidden activations, float32


@given(rows=st.integers(0, 300), most=st.integers(0, 70))
def test_slices_cover_every_row_once_and_none_is_larger_than_fits(rows: int, most: int) -> None:
    model = tiny.backbone("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CACHED_BYTES", most * bytes_of_a_row(model))
        parts = [range(rows)[part] for part in slices(model, rows)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert all(1 <= len(part) <= max(1, most) for part in parts)
    assert len({len(part) for part in parts[:-1]}) <= 1


@pytest.mark.parametrize("adapted", [False, True])
def test_features_are_those_of_one_large_batch(*, adapted: bool) -> None:
    model = tiny.backbone("plain")
    folded = tiny.adapter("vapt", model, classes=3).fold() if adapted else None
    with torch.inference_mode():
        expected = features(model, normalise(SPLIT.images, model.spec), folded)
    # fp32: products of other shapes sum in another order.
    torch.testing.assert_close(
        extract_features(model, SPLIT, folded), expected, atol=1e-5, rtol=1e-5
    )


def test_an_adapter_is_judged_by_the_logits_of_the_served_forward() -> None:
    model = tiny.backbone("plain")
    folded = tiny.adapter("vapt", model, classes=3).fold()
    with torch.inference_mode():
        logits = forward(model, normalise(SPLIT.images, model.spec), folded)
    found, expected = evaluate(model, SPLIT, folded), score(logits, SPLIT.labels)
    assert found.score == expected.score
    assert torch.equal(found.confusion, expected.confusion)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)  # as above


def test_evaluation_leaves_no_gradient_behind() -> None:
    model = tiny.backbone("plain")
    adapter = tiny.adapter("vapt", model, classes=3)
    evaluate(model, toys.split(6, seed=0), adapter.fold())
    assert not extract_features(model, toys.split(6, seed=0), adapter.fold()).requires_grad
    assert all(parameter.grad is None for parameter in adapter.parameters())
