"""Commands about the bank's one backbone: fetch, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, render, stage
from adapterbank.cli.render import Answer, Table

if TYPE_CHECKING:
    from adapterbank.registry.backbone import BackboneRecord

app = typer.Typer(help="The frozen network all tasks share.", no_args_is_help=True)


@app.command("fetch")
def fetch(
    *,
    force: Annotated[bool, typer.Option("--force", help="Fetch again, whatever is there.")] = False,
    bank: options.BankDir = None,
    as_json: options.Json = False,
) -> None:
    """Fetch, verify and fingerprint the backbone that pipelines/params.yaml names."""
    record = stage.fetch(options.open_bank(bank), force=force, quiet=as_json)
    render.answer(_answer(record, fetched=True), as_json=as_json)


@app.command("show")
def show(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Show which backbone all versions of this bank were trained on."""
    registry = options.open_registry(bank)
    fetched = registry.backbone_weights.is_file()
    render.answer(_answer(registry.backbone(), fetched=fetched), as_json=as_json)


def _answer(record: BackboneRecord, *, fetched: bool) -> Answer:
    traits, spec = record.traits, record.spec
    facts = [
        ("uri", record.uri),
        ("architecture", record.arch),
        ("fingerprint", record.fingerprint),
        ("input", f"{spec.size[0]} × {spec.size[1]}, {spec.interpolation}"),
        ("mean, std", f"{spec.mean}, {spec.std}"),
        ("tokens", f"{traits.prefix_tokens} + {traits.grid[0]} × {traits.grid[1]}"),
        ("width, blocks", f"{traits.width}, {traits.blocks}"),
        ("pooling", traits.pool),
        ("parameters", f"{traits.parameters:,}"),
        ("weights here", "yes" if fetched else "no: adapterbank backbone fetch"),
    ]
    content = {"uri": record.uri, "arch": record.arch, "fingerprint": record.fingerprint,
               "input": spec, "traits": traits, "fetched": fetched}  # fmt: skip
    return Answer(content, [Table(("what", "which"), facts)])
