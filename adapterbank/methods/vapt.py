"""VAPT (ICLR 2026, arXiv 2501.18936): prompts that are functions of the image.

Before each block but the first, the block's patch tokens are normalised, convolved with one K×K
kernel shared by all channels, summed over positions by a learned weighting for each prompt, and
passed through one bottleneck MLP shared by all blocks.

Normalisation aside, all of that up to the MLP is linear in the tokens, so it *folds*
(:mod:`adapterbank.methods.vapt`): this module trains and serves the folded form.
:mod:`adapterbank.model.reference` is the same written as the paper draws it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from adapterbank.errors import InputError
from adapterbank.methods.base import (
    Adapter,
    Dropout,
    Folded,
    Head,
    MethodConfig,
    drop_elements,
    uniform_prompts,
)
from adapterbank.records import Traits


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


build = Vapt


NORM_EPS = 1e-5  # the adapter's own LayerNorm; the backbone's is usually 1e-6


def activate(name: str, x: Tensor) -> Tensor:
    """Apply the projector's non-linearity."""
    return {"relu": torch.relu, "gelu": functional.gelu, "sigmoid": torch.sigmoid}[name](x)


def fold_kernels(alpha: Tensor, kernel: Tensor, grid: tuple[int, int], padding: int) -> Tensor:
    """Collapse each block's kernel and position weights.

    Args:
        alpha: (M, N, H'·W') position weights.
        kernel: (M, K, K), applied as a cross-correlation with stride 1.
        grid: patches down and across.
        padding: zeros around the grid.

    Returns:
        (M, N, P) weights of the patch tokens themselves.
    """
    blocks, prompts, _ = alpha.shape
    if blocks == 0:  # a backbone of one block has static prompts only; groups=0 is an error
        return alpha.new_zeros(0, prompts, grid[0] * grid[1])
    side = kernel.shape[-1]
    height, width = (edge + 2 * padding - side + 1 for edge in grid)
    maps = alpha.transpose(0, 1).reshape(prompts, blocks, height, width)
    # One group for each block: all blocks fold in a single call.
    weights = functional.conv_transpose2d(
        maps, kernel[:, None], padding=padding, groups=blocks
    )  # (N, M, *grid)
    return weights.transpose(0, 1).flatten(2)


@dataclass(frozen=True, kw_only=True)
class FoldedVapt(Folded):
    """VAPT ready to run. M = L − 1 blocks have adaptive prompts."""

    first: Tensor  # (N, D)
    weights: Tensor  # (M, N, P)
    mass: Tensor  # (M, N), row sums of the weights
    gamma: Tensor  # (M, D)
    beta: Tensor  # (M, D)
    bias: Tensor  # (M, N)
    down: Tensor | None  # (R, D) or (M, R, D)
    up: Tensor | None  # (D, R) or (M, D, R)
    scale: Tensor | None  # ()
    base: Tensor | None  # (M, N, D)
    prefix_tokens: int
    activation: str
    residual: bool
    rates: tuple[float, float, float]  # first prompts, channels, projector

    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> Tensor:
        """Return the block's prompts, computed from its own input tokens."""
        batch, _, width = tokens.shape
        if block == 0:
            return drop_elements(self.first, batch, self.rates[0], dropout)
        index = block - 1
        z = functional.layer_norm(tokens[:, self.prefix_tokens :], (width,), eps=NORM_EPS)
        pooled = (self.weights[index] @ z) * self.gamma[index]  # (B, N, D)
        pooled = pooled + self.mass[index][:, None] * self.beta[index]
        if dropout is not None and self.rates[1]:
            pooled = pooled * dropout.mask((batch, 1, width), self.rates[1], pooled)
        pooled = pooled + self.bias[index][:, None]
        if self.base is not None:
            pooled = pooled + self.base[index]
        return self._project(index, pooled, dropout)

    def _project(self, index: int, pooled: Tensor, dropout: Dropout | None) -> Tensor:
        """Pass (B, N, D) through the bottleneck MLP, Eq. "P = W₂ σ(W₁ G)" plus the residual."""
        if self.down is None or self.up is None:
            return pooled
        down = self.down if self.down.ndim == 2 else self.down[index]
        up = self.up if self.up.ndim == 2 else self.up[index]
        hidden = activate(self.activation, functional.linear(pooled, down))  # (B, N, R)
        if dropout is not None and self.rates[2]:
            hidden = hidden * dropout.mask(tuple(hidden.shape), self.rates[2], hidden)
        branch = functional.linear(hidden, up)
        if self.scale is not None:
            branch = self.scale * branch
        return pooled + branch if self.residual else branch

    def stack_key(self) -> Hashable:
        """N and the switches; neither R, K nor the number of classes."""
        projector = None if self.down is None else self.down.ndim
        present = (self.scale is not None, self.base is not None)
        return self.first.shape[0], self.activation, self.residual, projector, *present

    def stack_tensors(self) -> Mapping[str, Tensor]:
        """Everything but the head."""
        names = ("first", "weights", "mass", "gamma", "beta", "bias", "down", "up", "scale", "base")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def stacked_context(self, rows: Mapping[str, Tensor], block: int, tokens: Tensor) -> Tensor:
        """Compute prompts of rows with an adapter each: :meth:`context` with batched products."""
        if block == 0:
            return rows["first"]
        index, width = block - 1, tokens.shape[-1]
        z = functional.layer_norm(tokens[:, self.prefix_tokens :], (width,), eps=NORM_EPS)
        pooled = (rows["weights"][:, index] @ z) * rows["gamma"][:, index, None]  # (B, N, D)
        pooled = pooled + rows["mass"][:, index, :, None] * rows["beta"][:, index, None]
        pooled = pooled + rows["bias"][:, index, :, None]
        if "base" in rows:
            pooled = pooled + rows["base"][:, index]
        if "down" not in rows:
            return pooled
        down, up = rows["down"], rows["up"]  # (B, R, D) and (B, D, R), or (B, M, …)
        if down.ndim == 4:
            down, up = down[:, index], up[:, index]
        branch = activate(self.activation, pooled @ down.mT) @ up.mT
        if "scale" in rows:
            branch = rows["scale"][:, None, None] * branch
        return pooled + branch if self.residual else branch
