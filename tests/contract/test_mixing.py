"""Rows of every method share a batch with rows of any other; methods are found by their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from adapterbank import catalog
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import Dropout, Folded
from adapterbank.model.forward import forward
from adapterbank.model.mixed import ALONE, forward_mixed
from tests import tiny

METHODS = catalog.names("adapterbank.methods")
PAIRS = tuple(combinations(METHODS, 2))

each_method = pytest.mark.parametrize("method", METHODS)
each_backbone = pytest.mark.parametrize("kind", tiny.KINDS)


def folds(method: str, model: TimmViT, classes: Sequence[int] = (3, 7, 5)) -> list[Folded]:
    """Fold adapters of a method with as many classes each."""
    with torch.no_grad():
        return [
            tiny.adapter(method, model, classes=count, seed=seed).fold()
            for seed, count in enumerate(classes, start=1)
        ]


def assert_as_alone(model: TimmViT, images: Tensor, rows: Sequence[Folded]) -> None:
    """Compare each row with the answer of its adapter to a batch of that row."""
    with torch.inference_mode():
        logits, counts = forward_mixed(model, images, rows)
        assert counts.tolist() == [len(folded.head_bias) for folded in rows]
        assert logits.shape == (len(rows), max(counts.tolist()))
        got = logits.softmax(dim=1)
        for index, folded in enumerate(rows):
            count = len(folded.head_bias)
            alone = forward(model, images[index : index + 1], folded)[0]
            assert int(logits[index].argmax()) == int(alone.argmax())
            # fp32: products of other shapes sum in another order.
            torch.testing.assert_close(got[index, :count], alone.softmax(0), atol=1e-5, rtol=0.0)
            assert not got[index, count:].any()


@each_method
@each_backbone
def test_rows_of_several_adapters_are_answered_as_alone(method: str, kind: str) -> None:
    model = tiny.backbone(kind)
    first, second, third = folds(method, model)
    rows = [second, first, third, first, second]
    assert_as_alone(model, tiny.images(model, len(rows)), rows)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@each_backbone
def test_rows_of_two_methods_are_answered_as_alone(pair: tuple[str, str], kind: str) -> None:
    model = tiny.backbone(kind)
    (one, two, _), (other, another, _) = (folds(method, model) for method in pair)
    rows = [one, other, two, another, one, other]
    assert_as_alone(model, tiny.images(model, len(rows)), rows)


@each_method
def test_an_adapter_with_many_rows_is_answered_as_alone(method: str) -> None:
    model = tiny.backbone("plain")
    first, second, third = folds(method, model)
    rows = [first, *[second] * ALONE, third, first]
    assert_as_alone(model, tiny.images(model, len(rows)), rows)


@each_method
@each_backbone
def test_a_batch_of_one_adapter_is_that_adapters_forward_to_the_bit(method: str, kind: str) -> None:
    model = tiny.backbone(kind)
    images = tiny.images(model, 3)
    folded = folds(method, model)[0]
    with torch.inference_mode():
        logits, _ = forward_mixed(model, images, [folded] * 3)
        assert torch.equal(logits, forward(model, images, folded))


@each_method
@each_backbone
def test_stacked_prompts_are_those_of_each_row(method: str, kind: str) -> None:
    model = tiny.backbone(kind)
    members = folds(method, model)
    if members[0].stack_key() is None:
        assert all(not member.stack_tensors() for member in members)
        return
    assert len({member.stack_key() for member in members}) == 1
    each = [member.stack_tensors() for member in members]
    rows = {name: torch.stack([tensors[name] for tensors in each]) for name in each[0]}
    tokens = model.embed(tiny.images(model, len(members)))
    for block in range(model.traits.blocks):
        stacked = members[0].stacked_context(rows, block, tokens)
        assert stacked is not None
        for index, member in enumerate(members):
            alone = member.context(block, tokens[index : index + 1], None)
            assert alone is not None
            torch.testing.assert_close(stacked[index], alone[0], atol=1e-5, rtol=1e-5)


@each_method
def test_mixing_changes_no_tensor_of_an_adapter(method: str) -> None:
    model = tiny.backbone("plain")
    members = folds(method, model)
    before = [[tensor.clone() for tensor in member.tensors()] for member in members]
    with torch.inference_mode():
        forward_mixed(model, tiny.images(model, 3), members)
    for member, kept in zip(members, before, strict=True):
        assert all(map(torch.equal, member.tensors(), kept))


def switches() -> list[tuple[str, str, Any]]:
    """List every hyper-parameter of every method with values that are not its default."""
    found: list[tuple[str, str, Any]] = []
    for method in METHODS:
        config = catalog.load("adapterbank.methods", method, kind="method").Config
        for name, info in config.model_fields.items():
            if isinstance(info.default, bool):
                others: tuple[Any, ...] = (not info.default,)
            elif isinstance(info.default, str):
                others = tuple(set(get_args(info.annotation)) - {info.default})
            else:
                others = (info.default * 2,)
            found += [(method, name, other) for other in sorted(others)]
    return found


@pytest.mark.parametrize(("method", "name", "value"), switches())
def test_adapters_that_differ_in_one_hyper_parameter_mix(
    method: str, name: str, value: object
) -> None:
    model = tiny.backbone("plain")
    with torch.no_grad():
        adapters = [
            build_adapter(method, hyper, model.traits, 5, seed=seed, where="a test")
            for seed, hyper in enumerate(({}, {name: value}, {}, {name: value}))
        ]
        rows = [tiny.scramble(adapter, seed).fold() for seed, adapter in enumerate(adapters)]
    assert_as_alone(model, tiny.images(model, 4), rows)
    assert_as_alone(model, tiny.images(model, 4), rows[::-1])


class Wrapped(Folded):
    """A method that says nothing about stacking: prompts of another one, given one by one."""

    inner: Folded

    @classmethod
    def of(cls, inner: Folded) -> Wrapped:
        """Hide a folded form."""
        made = cls(head_weight=inner.head_weight, head_bias=inner.head_bias)
        object.__setattr__(made, "inner", inner)
        return made

    @property
    def appended(self) -> Tensor | None:
        return self.inner.appended

    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> Tensor | None:
        return self.inner.context(block, tokens, dropout)


@each_method
def test_a_method_that_does_not_stack_mixes_all_the_same(method: str) -> None:
    model = tiny.backbone("plain")
    hidden = [Wrapped.of(folded) for folded in folds(method, model)]
    rows = [hidden[0], *folds("vapt", model), *hidden, *folds("vpt_shallow", model)]
    assert_as_alone(model, tiny.images(model, len(rows)), rows)


class Forgetful(Wrapped):
    """Claims to stack, and does not."""

    def stack_key(self) -> str:
        return "any"


def test_a_stack_key_without_stacked_prompts_is_refused() -> None:
    model = tiny.backbone("plain")
    rows = [Forgetful.of(folded) for folded in folds("linear", model)]
    with pytest.raises(NotImplementedError, match="Forgetful"):
        forward_mixed(model, tiny.images(model, 3), rows)


def test_no_rows_are_no_answers() -> None:
    model = tiny.backbone("plain")
    logits, counts = forward_mixed(model, tiny.images(model, 0), [])
    assert logits.shape == (0, 0)
    assert counts.shape == (0,)


def test_stacking_copies_every_field_but_the_head() -> None:
    """A tensor that a stacked form left out would be that of another row's adapter."""
    for method in METHODS:
        folded = folds(method, tiny.backbone("plain"))[0]
        tensors: Mapping[str, Tensor] = folded.stack_tensors()
        if folded.stack_key() is not None:
            own = {f.name for f in fields(folded) if isinstance(getattr(folded, f.name), Tensor)}
            assert own - {"head_weight", "head_bias"} == tensors.keys(), method
