"""The folded form equals the drawn one: logits and every gradient, in evaluation and training."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.methods import vapt
from adapterbank.methods.base import Dropout
from adapterbank.model.forward import forward
from adapterbank.model.reference import reference_forward
from tests import tiny

PREFIXES: dict[int, dict[str, object]] = {
    0: {"class_token": False, "global_pool": "avg"},
    1: {},
    5: {"reg_tokens": 4, "no_embed_class": True},
}
# Relative to the largest logit, and to the largest gradient of all. In float64 the two agree as one
# function does with itself. In float32 gradients are as uncertain as the drawn form's own (1e-3 of
# its float64 value at worst of 1,500 draws): without the residual a prompt can be so small that the
# block's LayerNorm, eps 1e-6, multiplies its gradient by about 1,000.
LOGITS = {torch.float32: 1e-4, torch.float64: 1e-10}
GRADIENTS = {torch.float32: 5e-3, torch.float64: 1e-10}


@cache
def backbone(grid: tuple[int, int], prefix: int, dtype: torch.dtype) -> TimmViT:
    options = {**tiny.SMALL, **PREFIXES[prefix], "patch_size": 4, "img_size": 16}
    return tiny.build(options, (grid[0] * 4, grid[1] * 4), dtype)


@st.composite
def configs(draw: st.DrawFn, grid: tuple[int, int]) -> vapt.Config:
    padding = draw(st.integers(0, 2), label="padding")
    projector: Literal["shared", "per_block", "none"] = draw(
        st.sampled_from(("shared", "per_block", "none")), label="projector"
    )
    return vapt.Config(
        prompts=draw(st.integers(1, 4), label="N"),
        rank=draw(st.integers(1, 5), label="r"),
        kernel=draw(st.integers(1, min(min(grid) + 2 * padding, 4)), label="K"),
        padding=padding,
        conv=draw(st.booleans(), label="conv"),
        projector=projector,
        activation=draw(st.sampled_from(("relu", "gelu", "sigmoid")), label="activation"),
        residual=draw(st.booleans(), label="residual"),
        learnable_scale=projector != "none" and draw(st.booleans(), label="learnable_scale"),
        base_prompts=draw(st.booleans(), label="base_prompts"),
        dropout_first=draw(st.sampled_from((0.0, 0.3)), label="dropout_first"),
        dropout_channels=draw(st.sampled_from((0.0, 0.3)), label="dropout_channels"),
        dropout_projector=draw(st.sampled_from((0.0, 0.3)), label="dropout_projector"),
        start="paper",
    )


@given(
    data=st.data(),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    prefix=st.sampled_from(tuple(PREFIXES)),
    dtype=st.sampled_from(tuple(LOGITS)),
    training=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_folded_equals_drawn_in_logits_and_every_gradient(
    data: st.DataObject,
    grid: tuple[int, int],
    prefix: int,
    dtype: torch.dtype,
    training: bool,
    seed: int,
) -> None:
    config = data.draw(configs(grid), label="config")
    model = backbone(grid, prefix, dtype)
    generator = torch.Generator().manual_seed(seed)
    adapter = vapt.build(config, model.traits, 3, generator)
    tiny.scramble(adapter.to(dtype), seed)
    images = tiny.images(model, 2, seed)

    folded = forward(model, images, adapter.fold(), _dropout(seed, training=training))
    drawn = reference_forward(model, images, adapter, _dropout(seed, training=training))

    weights = torch.randn(drawn.shape, generator=generator).to(dtype)
    parameters = dict(adapter.named_parameters())
    limit = LOGITS[dtype] * float(drawn.detach().abs().max())
    _assert_close("logits", folded.detach(), drawn.detach(), limit)
    got = _gradients(folded, weights, parameters)
    expected = _gradients(drawn, weights, parameters)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name in parameters:
        _assert_close(name, got[name], expected[name], GRADIENTS[dtype] * largest)


def test_no_dropout_rate_changes_evaluation() -> None:
    model = backbone((4, 4), 1, torch.float32)
    images = tiny.images(model, 2)
    logits = []
    for rate in (0.0, 0.5):
        config = vapt.Config(
            dropout_first=rate, dropout_channels=rate, dropout_projector=rate, prompts=3
        )
        adapter = vapt.build(config, model.traits, 3, torch.Generator().manual_seed(0))
        logits.append(forward(model, images, tiny.scramble(adapter, 0).fold()))
    assert torch.equal(*logits)


def _dropout(seed: int, *, training: bool) -> Dropout | None:
    return Dropout(torch.Generator().manual_seed(seed)) if training else None


def _gradients(
    logits: Tensor, weights: Tensor, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, Tensor]:
    found = torch.autograd.grad(
        (logits * weights).sum(),
        list(parameters.values()),
        allow_unused=True,  # the scale, where there is no projector
        materialize_grads=True,
    )
    return dict(zip(parameters, found, strict=True))


def _assert_close(name: str, got: Tensor, expected: Tensor, limit: float) -> None:
    worst = float((got - expected).abs().max())
    assert worst <= limit, f"{name}: {worst:.2e} apart, {limit:.2e} allowed"
