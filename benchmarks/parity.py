"""Compare our forward and gradients with reference vectors of the published method.

    python -m benchmarks.parity FILE… [--folded] --out OUT.safetensors

Each FILE is a safetensors file with a small backbone, an adapter, inputs, logits, a loss and
gradients. With ``--folded`` the folded form runs (the one that trains and serves), otherwise the
unfolded reference. Errors are printed relative to each tensor's largest magnitude; OUT receives
our own values under the same names. Exits 1 when anything is beyond tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.timm_vit import TimmViT, build_vit
from adapterbank.methods import vapt, vpt_deep
from adapterbank.methods.base import Adapter
from adapterbank.model.forward import forward
from adapterbank.model.reference import reference_forward
from adapterbank.records import InputSpec

# Relative to the reference tensor's largest magnitude; ATOL on top, because a gradient that is
# zero up to rounding has no magnitude to be relative to.
RTOL_OUTPUT = 1e-5
RTOL_GRADIENT = 5e-5
ATOL = 1e-8

STACKED = {  # golden name after "adapter.layer.{block}." → our parameter, one row for each block
    "norm.weight": "norm_weight",
    "norm.bias": "norm_bias",
    "conv.kernel": "kernel",
    "tokenwise.weight": "alpha",
    "tokenwise.bias": "bias",
    "projector.down.weight": "down",
    "projector.up.weight": "up",
}
WHOLE = {  # golden name after "adapter." → our parameter
    "prompts.first": "first",
    "projector.down.weight": "down",
    "projector.up.weight": "up",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}


def backbone_of(meta: Mapping[str, str], tensors: Mapping[str, Tensor]) -> TimmViT:
    """Build the file's backbone."""
    size = int(meta["image_size"])
    options = {
        "patch_size": int(meta["patch"]),
        "embed_dim": int(meta["dim"]),
        "depth": int(meta["depth"]),
        "num_heads": int(meta["heads"]),
        "mlp_ratio": int(meta["mlp"]) / int(meta["dim"]),
    }
    state = {
        name.removeprefix("backbone."): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.")
    }
    spec = InputSpec(size=(size, size))
    return build_vit("vit_tiny_patch16_224", options, state, spec, fingerprint="golden")


def adapter_of(meta: Mapping[str, str], backbone: TimmViT) -> Adapter:
    """Build the file's method with its hyper-parameters; its values come later."""
    generator = torch.Generator().manual_seed(0)
    classes, prompts = int(meta["classes"]), int(meta["prompts"])
    if meta["method"] == "vpt":
        deep = vpt_deep.Config(prompts=prompts)
        return vpt_deep.build(deep, backbone.traits, classes, generator)
    projector = "shared" if meta["shared"] == "1" else "per_block"
    config = vapt.Config.model_validate(
        {
            "prompts": prompts,
            "rank": int(meta["rank"]),
            "kernel": int(meta["kernel"]),
            "padding": int(meta["padding"]),
            "conv": meta["conv"] == "1",
            "projector": projector if meta["featproj"] == "1" else "none",
            "activation": meta["activation"],
            "base_prompts": False,
            "start": "paper",
        }
    )
    return vapt.build(config, backbone.traits, classes, generator)


def slots(adapter: Adapter, names: list[str]) -> dict[str, tuple[str, int | None]]:
    """Where each golden adapter tensor lives in ours: a parameter, and a row of it or all."""
    found: dict[str, tuple[str, int | None]] = {}
    for name in names:
        inner = name.removeprefix("adapter.")
        if inner == "prompts.deep":
            found[name] = ("prompts", 1)
        elif inner == "prompts.first" and not hasattr(adapter, "first"):
            found[name] = ("prompts", 0)
        elif inner.startswith("layer."):
            _, block, rest = inner.split(".", 2)
            found[name] = (STACKED[rest], int(block) - 1)
        else:
            found[name] = (WHOLE[inner], None)
    return found


def view(values: Mapping[str, Tensor], slot: tuple[str, int | None], like: Tensor) -> Tensor:
    """Cut one golden tensor's worth out of ours, in the golden shape."""
    name, row = slot
    tensor = values[name]
    if row is not None:
        tensor = tensor[row:] if name == "prompts" and row == 1 else tensor[row]
    return tensor.reshape(like.shape)


def run(path: Path, *, folded: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run our model on one golden file.

    Returns:
        Our outputs and gradients, and the file's, under the file's names.
    """
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    golden = load_file(path)
    backbone = backbone_of(meta, golden)
    adapter = adapter_of(meta, backbone)
    names = [name for name in golden if name.startswith("adapter.")]
    where = slots(adapter, names)
    parameters = dict(adapter.named_parameters())
    with torch.no_grad():
        for name in names:
            view(parameters, where[name], golden[name]).copy_(golden[name])
    images, labels = golden["input.images"], golden["input.labels"]
    if folded or not isinstance(adapter, vapt.Vapt):
        logits = forward(backbone, images, adapter.fold())
    else:
        logits = reference_forward(backbone, images, adapter)
    loss = functional.cross_entropy(logits, labels)
    gradients = dict(
        zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
    )
    ours = {"output.logits": logits.detach(), "output.loss": loss.detach().reshape(1)}
    for name in names:
        key = "grad." + (name if "grad." + name in golden else name.removeprefix("adapter."))
        ours[key] = view(gradients, where[name], golden[name]).contiguous()
    expected = {n: t for n, t in golden.items() if n.startswith(("output.", "grad."))}
    return ours, expected


def main() -> int:
    """Run every file, print a table, write the values, and say whether all agree."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--folded", action="store_true", help="run the folded form")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.safetensors")
    args = parser.parse_args()
    table = Table("file", "logits", "loss", "worst gradient", "of", "verdict",
                  title="relative error, " + ("folded" if args.folded else "unfolded"))  # fmt: skip
    written: dict[str, Tensor] = {}
    failed = False
    for path in args.files:
        ours, expected = run(path, folded=args.folded)
        missing = sorted(expected.keys() ^ ours.keys())
        errors = {n: relative_error(ours[n], expected[n]) for n in expected.keys() & ours.keys()}
        gradients = {n: e for n, e in errors.items() if n.startswith("grad.")}
        worst = max(gradients, key=gradients.__getitem__)
        bad = missing + [n for n in errors if not within(n, ours[n], expected[n])]
        failed |= bool(bad)
        table.add_row(path.name, f"{errors['output.logits']:.1e}", f"{errors['output.loss']:.1e}",
                      f"{gradients[worst]:.1e}", worst.removeprefix("grad."),
                      f"FAILED: {', '.join(bad)}" if bad else "ok")  # fmt: skip
        prefix = f"{path.stem}/" if len(args.files) > 1 else ""
        written |= {prefix + name: tensor for name, tensor in ours.items()}
    save_file(written, args.out)
    Console().print(table)
    return int(failed)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """Largest difference, over the reference's largest magnitude plus what ATOL excuses."""
    scale = expected.abs().max() + ATOL / RTOL_GRADIENT
    return float((ours - expected).abs().max() / scale)


def within(name: str, ours: Tensor, expected: Tensor) -> bool:
    """Whether a tensor agrees with the reference."""
    rtol = RTOL_OUTPUT if name.startswith("output.") else RTOL_GRADIENT
    limit = rtol * float(expected.abs().max()) + ATOL
    return bool((ours - expected).abs().max() <= limit)


if __name__ == "__main__":
    sys.exit(main())
