"""VAPT (ICLR 2026, arXiv 2501.18936): prompts that are functions of the image.

Before each block but the first, the block's patch tokens are normalised, convolved with one K×K
kernel shared by all channels, summed over positions by a learned weighting for each prompt, and
passed through one bottleneck MLP shared by all blocks.

Normalisation aside, all of that up to the MLP is linear in the tokens, so it *folds*
(:mod:`adapterbank.methods._vapt_fold`): this module trains and serves the folded form.
:mod:`adapterbank.reference` is the same written as the paper draws it.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapterbank.errors import InputError
from adapterbank.heads import Head
from adapterbank.methods._prompts import uniform_prompts
from adapterbank.methods._vapt_fold import FoldedVapt, fold_kernels
from adapterbank.methods.base import Adapter, MethodConfig
from adapterbank.records import Traits

__all__ = ["Config", "Vapt", "build", "parameter_count", "region_weights"]


class Config(MethodConfig):
    """Hyper-parameters and switches of VAPT.

    The published method is ``base_prompts=False, start="paper"`` with the rest as it is here.
    ``base_prompts`` adds a learned vector to each adaptive prompt. ``start`` chooses initial
    values only. ``paper``: position weights of zero, kernels from N(0, 1). ``mixed``: every other
    prompt starts as the mean of a region of patch tokens; the rest start from their base vectors,
    as VPT-Deep's would, or pooled too where there are none; the projector's branch starts at zero.
    """

    prompts: int = Field(default=10, ge=1, le=4096)
    rank: int = Field(default=8, ge=1, le=4096)
    kernel: int = Field(default=2, ge=1, le=64)
    padding: int = Field(default=0, ge=0, le=32)
    conv: bool = True
    projector: Literal["shared", "per_block", "none"] = "shared"
    activation: Literal["relu", "gelu", "sigmoid"] = "relu"
    residual: bool = True  # in the authors' code, absent from the paper's formula
    learnable_scale: bool = False
    base_prompts: bool = True
    dropout_first: float = Field(default=0.1, ge=0.0, lt=1.0)
    dropout_channels: float = Field(default=0.1, ge=0.0, lt=1.0)
    dropout_projector: float = Field(default=0.1, ge=0.0, lt=1.0)
    start: Literal["paper", "mixed"] = "mixed"

    @model_validator(mode="after")
    def _scale_scales_something(self) -> Self:
        if self.learnable_scale and self.projector == "none":
            raise ValueError("learnable_scale needs a projector whose branch it scales")
        return self


class Vapt(Adapter):
    """Parameters of VAPT for one task; ``M = L − 1`` blocks have adaptive prompts.

    ==============  ============================  =========================================
    ``first``       (N, D)                        static prompts of block 0
    ``norm_weight`` (M, D)                        affine part of each block's LayerNorm
    ``norm_bias``   (M, D)
    ``kernel``      (M, K, K)                     one kernel a block, shared by all channels
    ``alpha``       (M, N, H'·W')                 weights of positions, for each prompt
    ``bias``        (M, N)
    ``down``        (R, D), or (M, R, D)          projector, shared or one for each block
    ``up``          (D, R), or (M, D, R)
    ``scale``       ()                            only with ``learnable_scale``
    ``base``        (M, N, D)                     only with ``base_prompts``
    ==============  ============================  =========================================

    Args:
        config: hyper-parameters.
        traits: of the backbone.
        classes: C.
        generator: source of the start.

    Raises:
        InputError: the kernel is larger than the padded grid.
    """

    config: Config

    def __init__(
        self, config: Config, traits: Traits, classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.traits = traits
        adaptive = traits.blocks - 1
        height, width = _map_size(config, traits)
        self.first = nn.Parameter(
            uniform_prompts((config.prompts, traits.width), traits, generator)
        )
        self.norm_weight = nn.Parameter(torch.ones(adaptive, traits.width))
        self.norm_bias = nn.Parameter(torch.zeros(adaptive, traits.width))
        if config.conv:
            shape = (adaptive, config.kernel, config.kernel)
            self.kernel = nn.Parameter(torch.randn(shape, generator=generator))
        self.alpha = nn.Parameter(torch.zeros(adaptive, config.prompts, height * width))
        self.bias = nn.Parameter(torch.zeros(adaptive, config.prompts))
        if config.projector != "none":
            stack = (adaptive,) if config.projector == "per_block" else ()
            self.down = nn.Parameter(_linear_start((*stack, config.rank, traits.width), generator))
            self.up = nn.Parameter(_linear_start((*stack, traits.width, config.rank), generator))
        if config.learnable_scale:
            self.scale = nn.Parameter(torch.ones(()))
        if config.base_prompts:
            self.base = nn.Parameter(torch.zeros(adaptive, config.prompts, traits.width))
        self.head = Head(traits.width, classes, generator)
        if config.start == "mixed":
            self._start_mixed((height, width), generator)

    def fold(self) -> FoldedVapt:
        """Collapse kernel and position weights into one (N, P) matrix for each block."""
        config, grid = self.config, self.traits.grid
        weights = (
            fold_kernels(self.alpha, self.kernel, grid, config.padding)
            if config.conv
            else self.alpha
        )
        return FoldedVapt(
            head_weight=self.head.weight,
            head_bias=self.head.bias,
            first=self.first,
            weights=weights,
            mass=weights.sum(dim=-1),
            gamma=self.norm_weight,
            beta=self.norm_bias,
            bias=self.bias,
            down=getattr(self, "down", None),
            up=getattr(self, "up", None),
            scale=getattr(self, "scale", None),
            base=getattr(self, "base", None),
            prefix_tokens=self.traits.prefix_tokens,
            activation=config.activation,
            residual=config.residual,
            rates=(config.dropout_first, config.dropout_channels, config.dropout_projector),
        )

    @torch.no_grad()
    def _start_mixed(self, size: tuple[int, int], generator: torch.Generator) -> None:
        """Let prompts start where the block's own tokens are, not at zero.

        At zero the block's LayerNorm multiplies gradients a thousandfold. And because normalised
        patch tokens are mostly one common vector, the first steps away from zero move all prompts
        together.
        """
        config = self.config
        if config.conv:
            self.kernel.fill_(1.0 / config.kernel**2)
        if config.projector != "none" and config.residual:  # without it nothing else is left
            self.up.zero_()
        self.alpha.copy_(region_weights(config.prompts, size))
        if config.base_prompts:
            # Normalised tokens have unit variance; a uniform in ±1.4 has two thirds of it.
            self.base.copy_(2.8 * torch.rand(self.base.shape, generator=generator) - 1.4)
            self.alpha[:, 1::2] = 0.0
            self.base[:, 0::2] = 0.0


def region_weights(prompts: int, size: tuple[int, int]) -> Tensor:
    """Position weights that average one region of the map for each prompt.

    Regions are Gaussian bumps, a fifth of the map's longer side wide, around points of the R2
    low-discrepancy sequence (Roberts 2018), so that any number of prompts covers the map evenly.

    Returns:
        (N, H'·W'), each row positive with sum 1.
    """
    height, width = size
    plastic = 1.32471795724474602596  # the real root of x³ = x + 1
    steps = torch.arange(1, prompts + 1, dtype=torch.float64)
    down = (0.5 + steps / plastic) % 1.0 * height - 0.5
    across = (0.5 + steps / plastic**2) % 1.0 * width - 0.5
    y = (torch.arange(height) - down[:, None])[:, :, None]
    x = (torch.arange(width) - across[:, None])[:, None, :]
    sigma = max(height, width) / 5.0
    distance = (y.square() + x.square()).flatten(1)  # (N, H'·W')
    return torch.softmax(-distance / (2.0 * sigma**2), dim=1).float()


def _map_size(config: Config, traits: Traits) -> tuple[int, int]:
    """Height and width of the convolved map."""
    if not config.conv:
        return traits.grid
    height, width = (side + 2 * config.padding - config.kernel + 1 for side in traits.grid)
    if height < 1 or width < 1:
        raise InputError(
            f"kernel {config.kernel} with padding {config.padding} does not fit a patch grid of"
            f" {traits.grid[0]}x{traits.grid[1]}",
            fix="lower the task's hyper.kernel in pipelines/params.yaml",
        )
    return height, width


def _linear_start(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """PyTorch's own start of a linear layer: U(−1/√fan_in, 1/√fan_in)."""
    bound = 1.0 / math.sqrt(shape[-1])
    return torch.rand(shape, generator=generator).mul_(2.0 * bound).sub_(bound)


def parameter_count(config: Config, traits: Traits) -> int:
    """Trained numbers without the head, by the published formula.

    ``N·D + (L−1)·(N·H'W' + N + K² + 2D) + 2RD``; with a projector for each block the last term
    counts L−1 times, without one it is gone, and so is K² without a convolution. Base prompts, not
    published, add ``(L−1)·N·D``.
    """
    height, width = _map_size(config, traits)
    adaptive = traits.blocks - 1
    kernel = config.kernel**2 if config.conv else 0
    projectors = {"shared": 1, "per_block": adaptive, "none": 0}[config.projector]
    count = config.prompts * traits.width
    count += adaptive * (config.prompts * (height * width + 1) + kernel + 2 * traits.width)
    count += projectors * 2 * config.rank * traits.width
    count += config.base_prompts * adaptive * config.prompts * traits.width
    return count + config.learnable_scale


def build(config: Config, traits: Traits, classes: int, generator: torch.Generator) -> Vapt:
    """Make a VAPT adapter at its start."""
    return Vapt(config, traits, classes, generator)
