"""How many images should go through a backbone together? As many as its caches hold.

    python -m benchmarks.rows [ARCH:PIXELS…] [--batch 64] [--threads 2]

The same batch goes through the bare backbone in parts of 1 to ``--batch`` rows, turn by turn;
throughput is relative to one part. ``ours`` is what ``adapterbank.backbones.base.slices`` cuts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adapterbank.backbones.base import slices
from adapterbank.backbones.timm_vit import TimmViT, build_vit, initial_state
from adapterbank.model import forward
from adapterbank.records import InputSpec
from benchmarks._machine import interleaved_medians, machine

DEFAULT = (
    "vit_small_patch14_dinov2:84", "vit_tiny_patch16_224:224", "vit_small_patch16_224:224",
    "vit_base_patch16_224:224",
)  # fmt: skip


@torch.inference_mode()
def run(backbone: TimmViT, images: Tensor, parts: Iterable[slice]) -> None:
    """Extract features part by part."""
    for part in parts:
        forward.features(backbone, images[part])


def measure(arch: str, pixels: int, batch: int, rounds: int) -> list[str]:
    """One row of the table."""
    spec = InputSpec(size=(pixels, pixels))
    backbone = build_vit(arch, {}, initial_state(arch, {}, seed=0), spec, "ab" * 32)
    images = torch.randn(batch, 3, *spec.size, generator=torch.Generator().manual_seed(0))

    def cut(rows: int) -> list[slice]:
        return [slice(start, start + rows) for start in range(0, batch, rows)]

    sizes = [batch >> power for power in range(batch.bit_length())]
    steps = {str(rows): cut(rows) for rows in sizes} | {"ours": list(slices(backbone, batch))}
    timed = {name: partial(run, backbone, images, parts) for name, parts in steps.items()}
    seconds = interleaved_medians(timed, rounds=rounds)
    ratios = [f"{seconds[str(batch)] / seconds[str(rows)]:.2f}" for rows in sizes]
    ours = f"{seconds[str(batch)] / seconds['ours']:.2f} ({steps['ours'][0].stop} rows)"
    return [f"{arch}, {pixels} px", f"{batch / seconds[str(batch)]:.1f}", *ratios, ours]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("backbones", nargs="*", default=DEFAULT, metavar="ARCH:PIXELS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = [str(args.batch >> power) for power in range(args.batch.bit_length())]
    table = Table("backbone", "images/s", *sizes, "ours", caption=machine(),
                  title=f"throughput of {args.batch} images in parts")  # fmt: skip
    for named in args.backbones:
        arch, _, pixels = named.partition(":")
        table.add_row(*measure(arch, int(pixels), args.batch, args.rounds))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
