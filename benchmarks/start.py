"""Time `adapterbank predict` of one image, cold, against a bare script, and `--help`.

    python -m benchmarks.start --bank DIR --task REF IMAGE [--rounds 7]

The bare script imports torch and timm, loads the same weights and forwards the same image; it
verifies nothing. Each run is a new process; turn by turn, medians.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from adapterbank.registry.store import Registry
from benchmarks._machine import interleaved_medians, machine

BARE = """
import sys
import numpy as np, timm, torch
from PIL import Image
from safetensors.torch import load_file
arch, weights, size, image = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
model = timm.create_model(arch, num_classes=0, dynamic_img_size=True).eval()
model.load_state_dict(load_file(weights))
pixels = np.asarray(Image.open(image).convert("RGB").resize((size, size)), dtype=np.float32) / 255
batch = torch.from_numpy((pixels - 0.45) / 0.22).permute(2, 0, 1)[None].contiguous()
with torch.inference_mode():
    print(model(batch).norm())
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bank", type=Path, default=Path())
    parser.add_argument("--task", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("image", type=Path)
    args = parser.parse_args()
    registry = Registry.open(args.bank / "registry")
    record = registry.backbone()
    command = [sys.executable, "-m", "adapterbank"]
    runs = {
        "bare script": [
            sys.executable, "-c", BARE, record.arch, str(registry.backbone_weights),
            str(record.spec.size[0]), str(args.image),
        ],
        "predict": [*command, "predict", "--bank", str(args.bank), "--task", args.task, "--json",
                    str(args.image)],
        "--help": [*command, "--help"],
    }  # fmt: skip
    steps = {name: partial(_run, words) for name, words in runs.items()}
    medians = interleaved_medians(steps, args.rounds)
    table = Table("command", "seconds", "to the bare script", caption=machine())
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / medians['bare script']:.2f}")
    Console().print(table)


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)  # noqa: S603  # our own command line


if __name__ == "__main__":
    main()
