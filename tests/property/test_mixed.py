"""A row of a mixed batch is answered as it would be alone, whatever stands beside it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import Folded
from adapterbank.model.forward import forward
from adapterbank.model.mixed import ALONE, forward_mixed
from tests import tiny

KINDS = ("plain", "registers", "no_cls", "qk_norm")
Recipe = tuple[str, tuple[tuple[str, Any], ...], int, int]  # method, hyper, classes, seed


@cache
def fold(kind: str, recipe: Recipe) -> Folded:
    method, hyper, classes, seed = recipe
    traits = tiny.backbone(kind).traits
    made = build_adapter(method, dict(hyper), traits, classes, seed=seed, where="a test")
    with torch.no_grad():
        return tiny.scramble(made, seed).fold()


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    method = draw(st.sampled_from(("vapt", "vapt", "vpt_deep", "vpt_shallow", "linear")))
    hyper: dict[str, Any] = {}
    if method != "linear":
        hyper["prompts"] = draw(st.integers(1, 4), label="N")
    if method == "vapt":
        projector = draw(st.sampled_from(("shared", "per_block", "none")))
        hyper |= {
            "rank": draw(st.integers(1, 5), label="R"),
            "kernel": draw(st.integers(1, 3), label="K"),
            "conv": draw(st.booleans()),
            "projector": projector,
            "activation": draw(st.sampled_from(("relu", "gelu", "sigmoid"))),
            "residual": draw(st.booleans()),
            "learnable_scale": projector != "none" and draw(st.booleans()),
            "base_prompts": draw(st.booleans()),
        }
    return method, tuple(hyper.items()), draw(st.integers(1, 9), label="C"), draw(st.integers(0, 5))


@st.composite
def mixtures(draw: st.DrawFn) -> list[Recipe]:
    """Draw rows: a few adapters, some of them often, in any order."""
    members = draw(st.lists(recipes(), min_size=1, max_size=6), label="adapters")
    counts = [draw(st.sampled_from((1, 2, ALONE - 1, ALONE + 1))) for _ in members]
    rows = [member for member, n in zip(members, counts, strict=True) for _ in range(n)]
    return draw(st.permutations(rows), label="order")


@given(kind=st.sampled_from(KINDS), rows=mixtures(), seed=st.integers(0, 2**16))
def test_a_row_is_answered_as_alone_whatever_its_neighbours(
    kind: str, rows: list[Recipe], seed: int
) -> None:
    model = tiny.backbone(kind)
    images = tiny.images(model, len(rows), seed)
    adapters = [fold(kind, row) for row in rows]
    with torch.inference_mode():
        logits, counts = forward_mixed(model, images, adapters)
        assert counts.tolist() == [classes for _, _, classes, _ in rows]
        probabilities = logits.softmax(dim=1)
        for folded in dict.fromkeys(adapters, None):
            mine = [index for index, other in enumerate(adapters) if other is folded]
            alone = forward(model, images[mine], folded).softmax(dim=1)
            got = probabilities[mine]
            classes = alone.shape[1]
            assert float((got[:, :classes] - alone).abs().max()) <= 1e-5
            assert not got[:, classes:].any()
            clear = alone.topk(min(2, classes)).values
            if classes > 1:  # a tie within rounding has no one label
                decided = clear[:, 0] - clear[:, 1] > 2e-5
                assert torch.equal(got.argmax(1)[decided], alone.argmax(1)[decided])


@given(rows=mixtures(), data=st.data(), size=st.integers(1, 7))
def test_order_and_batches_change_nothing_beyond_rounding(
    rows: list[Recipe], data: st.DataObject, size: int
) -> None:
    model = tiny.backbone("plain")
    images = tiny.images(model, len(rows))
    adapters = [fold("plain", row) for row in rows]
    order = data.draw(st.permutations(range(len(rows))), label="other order")
    with torch.inference_mode():
        logits, counts = forward_mixed(model, images, adapters)
        found = torch.zeros_like(logits)
        for start in range(0, len(order), size):
            part = list(order[start : start + size])
            got, _ = forward_mixed(model, images[part], [adapters[row] for row in part])
            found[part, : got.shape[1]] = got.softmax(dim=1)
    for row, classes in enumerate(counts.tolist()):
        together = logits[row].softmax(dim=0)[:classes]
        torch.testing.assert_close(found[row, :classes], together, atol=2e-5, rtol=0.0)
