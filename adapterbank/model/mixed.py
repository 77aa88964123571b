"""One forward for rows of many adapters: each row has its own, and they need not be alike.

Rows may differ in method, in the numbers of prompts, ranks and classes. They share the backbone's
products; only what differs runs apart:

* Rows whose adapters append tokens to the sequence (VPT-Shallow) need a sequence of another
  length, so each length is a *lane* of its own. All others are in one lane, with prompts or not.
* In a lane, adapters that stack (:meth:`~adapterbank.methods.base.Folded.stack_key`) compute
  their prompts in batched products over the tensors of each row, gathered once for a forward. An
  adapter with many rows does so alone: its weights need not be copied for each row.
* On a processor a lane runs in parts whose activations stay in its caches.
* Attention runs for rows with equally many prompts at a time, see
  :meth:`adapterbank.backbones.base.Backbone.block`; nothing is padded, so nothing is masked.

Nothing is kept between calls, so which adapters share a batch costs nothing to change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.base import Backbone, Groups, slices
from adapterbank.methods.base import Folded

ALONE = 8
"""An adapter with this many rows computes their prompts by itself. Below, calls cost more than
copying its weights for each row does."""


@dataclass(frozen=True)
class _Segment:
    """Consecutive rows of a lane that compute their prompts together."""

    start: int
    stop: int
    folded: Folded
    rows: Mapping[str, Tensor] | None  # None: all are of ``folded``

    def context(self, block: int, tokens: Tensor) -> tuple[int, Tensor | None]:
        mine = tokens[self.start : self.stop]
        if self.rows is None:
            return self.stop - self.start, self.folded.context(block, mine, None)
        return self.stop - self.start, self.folded.stacked_context(self.rows, block, mine)


def forward_mixed(
    backbone: Backbone, images: Tensor, adapters: Sequence[Folded]
) -> tuple[Tensor, Tensor]:
    """Logits of images that have an adapter each; evaluation only.

    A row's logits are those of :func:`adapterbank.model.forward` under its adapter, up to the
    rounding of products of other shapes, whatever its neighbours are.

    Args:
        backbone: the frozen backbone.
        images: (B, 3, H, W) normalised.
        adapters: B of them. Rows of one adapter are those that give the same object.

    Returns:
        Logits (B, C) where C is the largest number of classes, −inf beyond a row's own, so that a
        softmax is over its own classes; and (B,) the number of classes of each row.
    """
    classes = [folded.head_weight.shape[0] for folded in adapters]
    counts = torch.tensor(classes, device=images.device, dtype=torch.long)
    logits = images.new_full((len(adapters), max(classes, default=0)), -torch.inf)
    if not adapters:
        return logits, counts
    for lane in _lanes(adapters):
        for part in slices(backbone, len(lane)):
            order = lane[part]
            mine = [adapters[row] for row in order]
            index = torch.tensor(order, device=images.device)
            part_logits = logits.new_full((len(order), logits.shape[1]), -torch.inf)
            pooled = _features(backbone, backbone.embed(images[index]), mine)
            for start, stop in _runs(mine):
                head = mine[start]
                out = functional.linear(pooled[start:stop], head.head_weight, head.head_bias)
                part_logits[start:stop, : out.shape[1]] = out
            logits[index] = part_logits
    return logits, counts


def _features(backbone: Backbone, tokens: Tensor, adapters: Sequence[Folded]) -> Tensor:
    """Pooled features (B, D) of a lane, whose rows of one adapter stand together."""
    count = tokens.shape[1]
    appended = [
        folded.appended.expand(stop - start, -1, -1)
        for start, stop in _runs(adapters)
        if (folded := adapters[start]).appended is not None
    ]
    if appended:
        tokens = torch.cat((tokens, torch.cat(appended)), dim=1)
    segments = tuple(_segments(adapters))
    last = backbone.traits.blocks - 1
    for block in range(last + 1):
        groups = _merged(segment.context(block, tokens) for segment in segments)
        # One group is what a batch of one task is, and runs as it does.
        context = groups[0][1] if len(groups) == 1 else groups
        tokens = backbone.block(block, tokens, context, pooled=block == last)
    return backbone.finalize(tokens[:, :count])


def _lanes(adapters: Sequence[Folded]) -> Iterator[list[int]]:
    """Yield the rows of each lane: adapters that stack beside one another, then by adapter.

    Adapters are numbered as they first occur, so that equal batches give equal bits.
    """
    number = {id(folded): n for n, folded in reversed(list(enumerate(adapters)))}
    families: dict[object, int] = {}
    lanes: dict[int, list[tuple[int, bool, int, int]]] = {}
    many = _alone(adapters)
    for row, folded in enumerate(adapters):
        length = 0 if folded.appended is None else folded.appended.shape[1]
        family = families.setdefault(_family(folded), len(families))
        place = (family, id(folded) in many, number[id(folded)], row)
        lanes.setdefault(length, []).append(place)
    for places in lanes.values():
        yield [row for *_, row in sorted(places)]


def _family(folded: Folded) -> object:
    key = folded.stack_key()
    return id(folded) if key is None else (type(folded), key)


def _alone(adapters: Sequence[Folded]) -> set[int]:
    """Identities of the adapters that do not stack in this batch."""
    rows: dict[int, int] = {}
    for folded in adapters:
        rows[id(folded)] = rows.get(id(folded), 0) + 1
    return {
        id(folded) for folded in adapters if folded.stack_key() is None or rows[id(folded)] >= ALONE
    }


def _runs(adapters: Sequence[Folded]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of one adapter."""
    edges = [i for i, folded in enumerate(adapters) if i == 0 or folded is not adapters[i - 1]]
    yield from pairwise([*edges, len(adapters)])


def _segments(adapters: Sequence[Folded]) -> Iterator[_Segment]:
    """Yield the segments of a lane in its order."""
    alone = _alone(adapters)

    def together(row: int) -> object:
        folded = adapters[row]
        return id(folded) if id(folded) in alone else _family(folded)

    for _, group in groupby(range(len(adapters)), key=together):
        rows = list(group)
        members = [adapters[row] for row in rows]
        alike = all(member is members[0] for member in members)
        yield _Segment(rows[0], rows[-1] + 1, members[0], None if alike else _gather(members))


def _gather(members: Sequence[Folded]) -> dict[str, Tensor]:
    """Stack the tensors of each row's adapter, padded with zeros to the largest."""
    each = [member.stack_tensors() for member in members]
    return {name: _stack([tensors[name] for tensors in each]) for name in each[0]}


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    shapes = {tensor.shape for tensor in tensors}
    if len(shapes) == 1:
        return torch.stack(list(tensors))
    largest = [max(sides) for sides in zip(*shapes, strict=True)]
    padded = tensors[0].new_zeros(len(tensors), *largest)
    for row, tensor in zip(padded, tensors, strict=True):
        row[tuple(slice(side) for side in tensor.shape)] = tensor
    return padded


def _merged(groups: Iterable[tuple[int, Tensor | None]]) -> Groups:
    """Join neighbours that have equally many prompts; attention then runs once for them."""

    def alike(numbered: tuple[int, tuple[int, Tensor | None]]) -> tuple[int, int]:
        index, (rows, context) = numbered
        if context is None:
            return 0, 0
        # Prompts that rows share are projected once: worth more than the call that is saved.
        return context.shape[1], index + 1 if context.shape[0] != rows else 0

    merged = []
    for _, run in groupby(enumerate(groups), key=alike):
        counts, contexts = zip(*(group for _, group in run), strict=True)
        prompts = [context for context in contexts if context is not None]
        joined = torch.cat(prompts) if len(prompts) > 1 else contexts[0]
        merged.append((sum(counts), joined))
    return merged
