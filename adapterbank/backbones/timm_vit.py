"""The only module that knows timm's internals: a `VisionTransformer`, run block by block.

Two exact savings make adapted forwards cheaper than a plain ViT with as many tokens:

* Prompts that every block replaces are only ever *read* by a block. They need keys and values,
  but no queries, no attention output and no MLP.
* Where the head reads only the CLS token, so does the last block: one query, one MLP row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
import torch
from timm.layers.attention import Attention
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from adapterbank.backbones.base import Groups
from adapterbank.errors import InputError, IntegrityError, UnknownName
from adapterbank.records import InputSpec, Traits


class TimmViT(nn.Module):
    """A frozen timm `VisionTransformer`; the :class:`~adapterbank.backbones.base.Backbone`.

    Args:
        vit: the model, already loaded; it is frozen and kept in evaluation mode.
        spec: the input it was built for.
        fingerprint: SHA-256 over the original tensors and the spec.

    Raises:
        InputError: the model's blocks are of a kind whose arithmetic this class does not know.
    """

    def __init__(self, vit: VisionTransformer, spec: InputSpec, fingerprint: str) -> None:
        super().__init__()
        _refuse_unknown_blocks(vit)
        self.vit = vit.eval().requires_grad_(requires_grad=False)
        self.spec = spec
        self.fingerprint = fingerprint
        grid = vit.patch_embed.grid_size
        patch = vit.patch_embed.patch_size
        self.traits = Traits(
            width=vit.embed_dim,
            blocks=len(vit.blocks),
            patch=(int(patch[0]), int(patch[1])),
            grid=(int(grid[0]), int(grid[1])),
            prefix_tokens=vit.num_prefix_tokens,
            pool="map" if getattr(vit, "attn_pool", None) is not None else vit.global_pool,
            parameters=sum(p.numel() for p in vit.parameters()),
        )

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return next(self.vit.parameters()).device

    def train(self, mode: bool = True) -> TimmViT:  # noqa: FBT001, FBT002  # nn.Module's signature
        """Stay in evaluation mode: a frozen backbone has no stochastic depth or dropout."""
        del mode
        return super().train(mode=False)

    def embed(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, 3, H, W) into tokens (B, T, D)."""
        tokens = self.vit._pos_embed(self.vit.patch_embed(images))  # noqa: SLF001
        return self.vit.norm_pre(tokens)  # type: ignore[no-any-return]

    def block(
        self,
        index: int,
        tokens: Tensor,
        context: Tensor | Groups | None = None,
        *,
        pooled: bool = False,
    ) -> Tensor:
        """Run one block; see :meth:`adapterbank.backbones.base.Backbone.block`."""
        block = cast("Block", self.vit.blocks[index])
        attn = cast("Attention", block.attn)
        queries = 1 if pooled and self.traits.pool == "token" else tokens.shape[1]
        normed = block.norm1(tokens)
        q, k, v = _queries_keys_values(attn, normed, queries)
        if isinstance(context, Sequence):
            mixed = _attend_in_groups(block, (q, k, v), context)
            return _close(block, tokens[:, :queries], mixed)
        if context is not None:
            _, more_k, more_v = _queries_keys_values(attn, block.norm1(context), 0)
            rows = (tokens.shape[0], -1, -1, -1)
            k = torch.cat((k, more_k.expand(rows)), dim=2)
            v = torch.cat((v, more_v.expand(rows)), dim=2)
        mixed = functional.scaled_dot_product_attention(q, k, v)  # (B, heads, queries, D/heads)
        return _close(block, tokens[:, :queries], mixed)

    def finalize(self, tokens: Tensor) -> Tensor:
        """Normalise and pool a block's tokens (B, T, D) into features (B, D), as the last's are."""
        return self.vit.forward_head(self.vit.norm(tokens), pre_logits=True)


def _queries_keys_values(attn: Attention, normed: Tensor, queries: int) -> tuple[Tensor, ...]:
    """Project (B, T, D) into queries of the first rows and keys and values of all.

    Returns:
        q (B, heads, queries, D/heads), k and v (B, heads, T, D/heads).
    """
    rows, count, _ = normed.shape
    shape = (rows, -1, attn.num_heads, attn.head_dim)
    if queries == count:  # one product is faster than two
        q, k, v = attn.qkv(normed).chunk(3, dim=-1)
    else:
        split = attn.attn_dim
        weight, bias = attn.qkv.weight, cast("Tensor | None", attn.qkv.bias)
        q_bias, kv_bias = (None, None) if bias is None else (bias[:split], bias[split:])
        k, v = functional.linear(normed, weight[split:], kv_bias).chunk(2, dim=-1)
        q = functional.linear(normed[:, :queries], weight[:split], q_bias)
    q = attn.q_norm(q.reshape(shape).transpose(1, 2))
    k = attn.k_norm(k.reshape(shape).transpose(1, 2))
    return q, k, v.reshape(shape).transpose(1, 2)


def _attend_in_groups(block: Block, own: tuple[Tensor, Tensor, Tensor], groups: Groups) -> Tensor:
    """Attend where groups of consecutive rows have prompts of different number.

    All prompts of the batch are projected in one product; only attention itself runs group by
    group. Padding them to one number behind a mask gives the same, but projects and attends to
    the padding. ``own`` is q (B, heads, queries, D/heads), k and v (B, heads, T, D/heads).
    """
    attn = cast("Attention", block.attn)
    counts = [rows for rows, _ in groups]
    prompts = [context for _, context in groups if context is not None]
    sizes = [context.shape[0] * context.shape[1] for context in prompts]
    flat = torch.cat([context.flatten(0, 1) for context in prompts])
    _, flat_k, flat_v = _queries_keys_values(attn, block.norm1(flat)[None], 0)
    split = (flat.split_with_sizes(sizes, dim=2) for flat in (flat_k, flat_v))
    more = iter(zip(*split, strict=True))
    mixed = []
    parts = (tensor.split_with_sizes(counts) for tensor in own)
    for (rows, context), q, k, v in zip(groups, *parts, strict=True):
        if context is not None:
            shape = (attn.num_heads, *context.shape[:2], attn.head_dim)
            more_k, more_v = (
                tensor.reshape(shape).transpose(0, 1).expand(rows, -1, -1, -1)
                for tensor in next(more)
            )
            k, v = torch.cat((k, more_k), dim=2), torch.cat((v, more_v), dim=2)  # noqa: PLW2901
        mixed.append(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2))
    return torch.cat(mixed).transpose(1, 2)  # as attention lays it out: what follows copies nothing


def _close(block: Block, tokens: Tensor, mixed: Tensor) -> Tensor:
    """Add what attention gave, (B, heads, T, D/heads), to tokens (B, T, D), then the MLP."""
    attn = cast("Attention", block.attn)
    mixed = attn.proj(attn.norm(mixed.transpose(1, 2).flatten(2)))  # (B, T, D)
    tokens = tokens + block.ls1(mixed)
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))  # type: ignore[no-any-return]


def _refuse_unknown_blocks(vit: nn.Module) -> None:
    """Raise where this class would compute something else than timm does."""
    if type(vit) is not VisionTransformer:
        raise InputError(
            f"{type(vit).__name__} is not a plain timm VisionTransformer, the only kind of"
            " backbone supported so far"
        )
    for index, block in enumerate(vit.blocks):
        attn = getattr(block, "attn", None)
        if type(block) is not Block or type(attn) is not Attention or attn.gate is not None:
            raise InputError(
                f"block {index} is {type(block).__name__} with {type(attn).__name__}: expected a"
                " plain pre-norm block with ungated attention"
            )


def build_vit(
    arch: str,
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
    spec: InputSpec,
    fingerprint: str,
) -> TimmViT:
    """Build a model for ``spec.size`` around ``state``, without initialising weights twice.

    Args:
        arch: timm's name for the architecture.
        options: keyword arguments of timm's constructor.
        state: tensors under timm's names, positions at their original grid.
        spec: the input to build for; positions are resampled to its grid, bicubic.
        fingerprint: what the result says of itself.

    Raises:
        UnknownName: timm has no such architecture.
        InputError: the input size does not divide into patches.
        IntegrityError: ``state`` is not of this architecture; every difference is named.
    """
    with torch.device("meta"):
        vit = _create(arch, {**options, "img_size": spec.size})
    patch = vit.patch_embed.patch_size
    if spec.size[0] % patch[0] or spec.size[1] % patch[1]:
        raise InputError(
            f"input size {spec.size[0]}x{spec.size[1]} does not divide into patches of"
            f" {patch[0]}x{patch[1]}",
            fix="set backbone.size in pipelines/params.yaml to a multiple of the patch",
        )
    if vit.patch_embed.proj.in_channels != 3:
        raise InputError(
            f"{arch} with in_chans={vit.patch_embed.proj.in_channels}: a bank's images have 3",
            fix="leave in_chans out, and give patch_embed.proj.weight 3 channels",
        )
    fitted = dict(state)
    if vit.pos_embed is not None and "pos_embed" in fitted:
        fitted["pos_embed"] = _fitted_positions(vit, fitted["pos_embed"])
    _refuse_other_tensors(arch, vit.state_dict(), fitted)
    vit.load_state_dict(fitted, strict=True, assign=True)
    return TimmViT(vit, spec, fingerprint)


def _fitted_positions(vit: VisionTransformer, positions: Tensor) -> Tensor:
    """Resample positions (1, prefix + places, D) to the model's grid.

    Raises:
        InputError: they are of a grid that is neither square nor the model's.
    """
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    grid = [int(side) for side in vit.patch_embed.grid_size]
    places = positions.shape[1] - prefix if positions.ndim == 3 else 0
    if places == grid[0] * grid[1] and math.isqrt(places) ** 2 != places:
        return positions
    if places < 1 or math.isqrt(places) ** 2 != places:
        raise InputError(
            f"pos_embed {tuple(positions.shape)} has {places} places beside {prefix} tokens, which"
            f" make no square; the input size has a grid of {grid[0]} x {grid[1]}",
            fix="set backbone.size to the size that the checkpoint was trained with, or resample"
            " its pos_embed to a square grid",
        )
    resampled: Tensor = resample_abs_pos_embed(positions, grid, num_prefix_tokens=prefix)
    return resampled


def initial_state(arch: str, options: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Tensors of a randomly initialised model; equal seeds give equal tensors."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        vit = _create(arch, options)
        return {name: tensor.clone() for name, tensor in vit.state_dict().items()}


def pretrained_state(arch: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors of a hub checkpoint (network), and the preprocessing timm publishes with it."""
    vit = _create(arch, {}, pretrained=True)
    return dict(vit.state_dict()), dict(cast("Mapping[str, Any]", vit.pretrained_cfg))


def _create(
    arch: str, options: Mapping[str, Any], *, pretrained: bool = False
) -> VisionTransformer:
    if not timm.is_model(arch):
        raise UnknownName("timm architecture", arch, timm.list_models())
    try:
        vit = timm.create_model(arch, pretrained=pretrained, num_classes=0, **options)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise InputError(f"timm cannot build {arch} with {dict(options)}: {error}") from error
    return cast("VisionTransformer", vit)


def _refuse_other_tensors(
    arch: str, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
) -> None:
    problems = [f"missing {name}" for name in sorted(expected.keys() - got.keys())]
    problems += [f"unexpected {name}" for name in sorted(got.keys() - expected.keys())]
    problems += [
        f"{name}: got {tuple(got[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name].shape != expected[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + ("; …" if len(problems) > 8 else "")
        raise IntegrityError(
            f"the weights are not those of {arch}: {len(problems)} differences: {shown}",
            fix="name the architecture of the file, with its options: ?arch=NAME&depth=…; its"
            " tensors must have timm's names",
        )
