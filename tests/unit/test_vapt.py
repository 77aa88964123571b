"""VAPT's parameters: how many, of which shape, and which kernels fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapterbank.errors import InputError
from adapterbank.methods import vapt
from adapterbank.methods.base import count_parameters
from adapterbank.model.forward import forward
from adapterbank.model.reference import reference_forward
from adapterbank.records import Traits
from tests import tiny

VIT_B16 = Traits(
    width=768,
    blocks=12,
    patch=(16, 16),
    grid=(14, 14),
    prefix_tokens=1,
    pool="token",
    parameters=85_798_656,
)


def count(config: vapt.Config, traits: Traits = VIT_B16) -> int:
    return count_parameters(vapt.build(config, traits, 3, torch.Generator().manual_seed(0)))[0]


def published(config: vapt.Config, traits: Traits) -> int:
    """Trained numbers without the head, by the published formula.

    ``N·D + (L−1)·(N·H'W' + N + K² + 2D) + 2RD``; with a projector for each block the last term
    counts L−1 times, without one it is gone, and so is K² without a convolution. Base prompts, not
    published, add ``(L−1)·N·D``.
    """
    shrunk = 2 * config.padding - config.kernel + 1 if config.conv else 0
    height, width = (side + shrunk for side in traits.grid)
    adaptive = traits.blocks - 1
    kernel = config.kernel**2 if config.conv else 0
    projectors = {"shared": 1, "per_block": adaptive, "none": 0}[config.projector]
    total = config.prompts * traits.width
    total += adaptive * (config.prompts * (height * width + 1) + kernel + 2 * traits.width)
    total += projectors * 2 * config.rank * traits.width
    total += config.base_prompts * adaptive * config.prompts * traits.width
    return total + config.learnable_scale


@pytest.mark.parametrize(
    ("prompts", "rank", "kernel", "expected"),
    [  # by hand from N·D + (L−1)·(N·H'W' + N + K² + 2D) + 2RD
        (1, 4, 2, 25_722),
        (5, 8, 2, 42_418),
        (10, 8, 2, 55_608),
        (10, 16, 2, 67_896),
        (50, 8, 2, 161_128),
        (100, 8, 2, 293_028),
        (100, 64, 2, 379_044),
        (10, 8, 3, 52_913),
        (50, 8, 3, 147_433),
        (100, 8, 3, 265_583),
        (100, 16, 3, 277_871),
        (10, 8, 1, 58_545),
    ],
)
def test_vit_b16_has_the_published_number_of_parameters(
    prompts: int, rank: int, kernel: int, expected: int
) -> None:
    config = vapt.Config(prompts=prompts, rank=rank, kernel=kernel, base_prompts=False)
    assert published(config, VIT_B16) == expected
    assert count(config) == expected


@pytest.mark.parametrize(("prompts", "expected"), [(10, 58_534), (50, 175_934), (100, 322_684)])
def test_vit_b16_without_a_convolution_has_the_published_number_of_parameters(
    prompts: int, expected: int
) -> None:
    config = vapt.Config(prompts=prompts, conv=False, base_prompts=False)
    assert published(config, VIT_B16) == count(config) == expected


@given(
    prompts=st.integers(1, 12),
    rank=st.integers(1, 9),
    kernel=st.integers(1, 4),
    padding=st.integers(0, 2),
    conv=st.booleans(),
    projector=st.sampled_from(("shared", "per_block", "none")),
    learnable_scale=st.booleans(),
    base_prompts=st.booleans(),
    grid=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    blocks=st.integers(2, 5),
)
def test_the_formula_counts_the_tensors_that_are_built(
    prompts: int,
    rank: int,
    kernel: int,
    padding: int,
    conv: bool,
    projector: str,
    learnable_scale: bool,
    base_prompts: bool,
    grid: tuple[int, int],
    blocks: int,
) -> None:
    traits = Traits(
        width=16,
        blocks=blocks,
        patch=(8, 8),
        grid=grid,
        prefix_tokens=1,
        pool="token",
        parameters=0,
    )
    config = vapt.Config.model_validate(
        {
            "prompts": prompts,
            "rank": rank,
            "kernel": kernel,
            "padding": padding,
            "conv": conv,
            "projector": projector,
            "learnable_scale": learnable_scale and projector != "none",
            "base_prompts": base_prompts,
        }
    )
    assert count(config, traits) == published(config, traits)


def test_the_published_start_is_zero_weights_and_a_normal_kernel() -> None:
    config = vapt.Config(start="paper", base_prompts=False, prompts=50, kernel=3)
    adapter = vapt.build(config, VIT_B16, 3, torch.Generator().manual_seed(0))
    assert not adapter.alpha.any()
    assert not adapter.bias.any()
    assert (adapter.norm_weight == 1).all()
    assert not adapter.norm_bias.any()
    # U(−v, v), v = sqrt(6 / (3·16² + 768)) = 0.0625
    assert adapter.first.detach().abs().max().item() == pytest.approx(0.0625, rel=1e-3)
    # 99 draws of N(0, 1): four standard errors
    assert abs(adapter.kernel.detach().mean().item()) < 0.41
    assert 0.7 < adapter.kernel.detach().std().item() < 1.3
    # kaiming-uniform(√5) of a linear layer is U(−1/√fan_in, 1/√fan_in)
    assert adapter.down.detach().abs().max().item() == pytest.approx(768**-0.5, rel=1e-2)
    assert adapter.up.detach().abs().max().item() == pytest.approx(8**-0.5, rel=1e-2)


@pytest.mark.parametrize(("kernel", "padding"), [(15, 0), (18, 1)])
def test_a_kernel_that_does_not_fit_the_grid_is_refused(kernel: int, padding: int) -> None:
    with pytest.raises(InputError, match="does not fit a patch grid of 14x14"):
        count(vapt.Config(kernel=kernel, padding=padding))


@pytest.mark.parametrize(("kernel", "padding", "side"), [(14, 0, 1), (17, 1, 0), (16, 1, 1)])
def test_a_kernel_as_large_as_the_grid_gives_one_position(
    kernel: int, padding: int, side: int
) -> None:
    config = vapt.Config(kernel=kernel, padding=padding)
    if side == 0:
        with pytest.raises(InputError):
            count(config)
    else:
        adapter = vapt.build(config, VIT_B16, 3, torch.Generator().manual_seed(0))
        assert adapter.alpha.shape[-1] == side


def test_a_backbone_of_one_block_has_only_static_prompts() -> None:
    model = tiny.build({**tiny.SMALL, "depth": 1}, (32, 32))
    adapter = vapt.build(vapt.Config(), model.traits, 3, torch.Generator().manual_seed(0))
    images = tiny.images(model, 2)
    drawn = reference_forward(model, images, adapter)
    got = forward(model, images, adapter.fold())
    torch.testing.assert_close(got, drawn, atol=1e-5, rtol=1e-5)  # fp32


@given(prompts=st.integers(1, 40), size=st.tuples(st.integers(1, 16), st.integers(1, 16)))
def test_regions_are_means_that_cover_the_map(prompts: int, size: tuple[int, int]) -> None:
    weights = vapt.region_weights(prompts, size)
    assert weights.shape == (prompts, size[0] * size[1])
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(prompts))  # fp32 sums
    if prompts >= 20:
        # No position is left out: every one has at least a tenth of an even share.
        assert weights.mean(0).min() * weights.shape[1] > 0.1


def test_the_mixed_start_alternates_pooled_and_static_prompts() -> None:
    adapter = vapt.build(vapt.Config(prompts=5), VIT_B16, 3, torch.Generator().manual_seed(0))
    folded = adapter.fold()
    torch.testing.assert_close(folded.mass[:, 0::2], torch.ones(11, 3))  # sums of 169 weights
    assert not folded.weights[:, 1::2].any()
    assert not adapter.base[:, 0::2].any()
    assert adapter.base[:, 1::2].detach().std().item() == pytest.approx(1.4 / 3**0.5, rel=0.02)
    assert not adapter.up.any()


def test_a_scale_without_a_projector_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a projector"):
        vapt.Config(learnable_scale=True, projector="none")


@pytest.mark.parametrize("residual", [True, False])
def test_no_prompt_of_the_mixed_start_is_zero(residual: bool) -> None:
    model = tiny.backbone("plain")
    config = vapt.Config(residual=residual)
    adapter = vapt.build(config, model.traits, 3, torch.Generator().manual_seed(0))
    tokens = model.embed(tiny.images(model, 2))
    prompts = adapter.fold().context(1, tokens, None)
    assert prompts.abs().amax(dim=-1).min() > 1e-3  # a LayerNorm amplifies what is near zero
