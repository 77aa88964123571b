"""The fold: VAPT's convolution and position weights are one matrix.

With ``z`` the normalised patch tokens (P, D), ``F`` the kernel and ``α`` the position weights,
``g = α (F * z) + b = A z + b`` where ``A`` is the transposed convolution of ``α``'s maps with
``F`` (cropped by the padding). The LayerNorm's affine part folds as well:
``A (γ⊙ẑ + β) + b = (A ẑ)⊙γ + (A·1) βᵀ + b``. K is gone; what remains depends on N alone.

Dropping whole channels after the convolution commutes with ``A``, which never mixes channels, so
the fold is exact in training too.

Folded adapters also stack: K is gone, and a smaller rank R is padded with zeros, exactly: whatever
the non-linearity makes of a zero is multiplied with a zero column of ``up``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.methods._prompts import drop_elements
from adapterbank.methods.base import Dropout, Folded

__all__ = ["FoldedVapt", "activate", "fold_kernels"]

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
