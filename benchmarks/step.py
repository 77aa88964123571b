"""Time a training step and a forward: the method as drawn, ours, and a plain ViT.

    python -m benchmarks.step [--arch ARCH] [--size 224] [--prompts 10 50 100] [--batch 8]

(a) is VAPT written as the paper draws it (:mod:`adapterbank.model.reference`): prompts as tokens, a
depthwise convolution, timm's own blocks. (b) is what trains and serves here. (c) is the plain ViT
on a sequence with as many tokens, which for a training step also carries gradients from its input
prompts to the loss. One process, turn by turn, medians.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.timm_vit import TimmViT, build_vit, initial_state
from adapterbank.methods import vapt
from adapterbank.methods.base import Dropout
from adapterbank.model.forward import forward
from adapterbank.model.reference import reference_forward
from adapterbank.records import InputSpec
from benchmarks._machine import interleaved_medians, machine


def plain_forward(
    backbone: TimmViT, images: Tensor, extra: Tensor, head: torch.nn.Module
) -> Tensor:
    """Run timm's blocks over the image's tokens and ``extra`` ones (1, N, D)."""
    tokens = backbone.embed(images)
    count = tokens.shape[1]
    tokens = torch.cat((tokens, extra.expand(tokens.shape[0], -1, -1)), dim=1)
    for block in backbone.vit.blocks:
        tokens = block(tokens)
    return head(backbone.finalize(tokens[:, :count]))  # type: ignore[no-any-return]


def measure(
    backbone: TimmViT, prompts: int, batch: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a training step and of a forward, for each of the three."""
    generator = torch.Generator().manual_seed(0)
    adapter = vapt.build(
        vapt.Config(prompts=prompts, rank=16, kernel=3), backbone.traits, 100, generator
    )
    images = torch.randn(batch, 3, *backbone.spec.size, generator=generator)
    labels = torch.randint(0, 100, (batch,), generator=generator)
    extra = torch.nn.Parameter(torch.zeros(1, prompts, backbone.traits.width))
    dropout = Dropout(generator)
    parameters = [*adapter.parameters(), extra]

    def trained(logits: Tensor) -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(functional.cross_entropy(logits, labels))

    steps = {
        "drawn": lambda: trained(reference_forward(backbone, images, adapter, dropout)),
        "ours": lambda: trained(forward(backbone, images, adapter.fold(), dropout)),
        "plain": lambda: trained(plain_forward(backbone, images, extra, adapter.head)),
    }
    train = interleaved_medians(steps, rounds)
    with torch.inference_mode():
        folded = adapter.fold()
        forwards = {
            "drawn": lambda: reference_forward(backbone, images, adapter),
            "ours": lambda: forward(backbone, images, folded),
            "plain": lambda: plain_forward(backbone, images, extra, adapter.head),
        }
        served = interleaved_medians(forwards, rounds)
    return train, served


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--arch", nargs="+", default=["vit_small_patch16_224", "vit_base_patch16_224"]
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--prompts", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    table = Table(
        "backbone", "N", "train: drawn", "ours", "plain", "drawn/ours",
        "forward: drawn", "ours", "plain", "ours/plain",
        title=f"{args.size} px, batch {args.batch}, seconds, medians of {args.rounds}",
        caption=machine(),
    )  # fmt: skip
    for arch in args.arch:
        spec = InputSpec(size=(args.size, args.size))
        backbone = build_vit(arch, {}, initial_state(arch, {}, seed=0), spec, "benchmark")
        for prompts in args.prompts:
            train, served = measure(backbone, prompts, args.batch, args.rounds)
            table.add_row(
                arch, str(prompts), *(f"{train[k]:.3f}" for k in ("drawn", "ours", "plain")),
                f"[bold]{train['drawn'] / train['ours']:.2f}[/]",
                *(f"{served[k]:.3f}" for k in ("drawn", "ours", "plain")),
                f"[bold]{served['ours'] / served['plain']:.2f}[/]",
            )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
