"""The command that proves zero forgetting: audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.text import count

if TYPE_CHECKING:
    from adapterbank.continual.audit import AuditedVersion, AuditReport

app = typer.Typer()

FAILED = 1  # a check failed


@app.command("audit")
def audit(
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|REF",
            help="Only versions published before this: 2026-03-01T12:00:00Z, or dtd@3.",
        ),
    ] = None,
    device: options.Device = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Prove that nothing was forgotten.

    Of every version: its bytes are those of its digest, and its canary gives the logits it gave
    when it was published, on the backbone with the same fingerprint. Writes reports/audit.json;
    the exit code is 1 if any version is not what it was.
    """
    opened = options.open_bank(bank)
    with progress.bar("Auditing", quiet=as_json) as shown:
        from adapterbank.continual import audit as work

        report = work.audit(opened, before=before, device=device, progress=shown)
    if as_json:
        render.print_json(report.as_json())
    else:
        print_audit(report)
        render.line(f"Report: {work.REPORT}")
    if not report.ok:
        raise typer.Exit(FAILED)


def print_audit(report: AuditReport) -> None:
    """Print what an audit found, task by task."""
    if report.versions:
        render.table(
            ("task", ">versions", "bytes", ">canary differs by", "result"), _rows(report.versions)
        )
    render.line(f"Backbone: {report.backbone.uri} ({report.backbone.fingerprint})")
    if report.backbone_problem is not None:
        render.line(f"FAILED backbone: {report.backbone_problem}")
    for one in report.failed:
        render.line(f"FAILED {one.name}: {one.problem}")
    moment = "" if report.before is None else f" published before {report.before}"
    checked = f"{count(len(report.versions), 'version')}{moment} checked"
    if report.ok:
        render.line(f"{checked}: nothing was forgotten")
    else:
        render.line(f"{checked}: {len(report.failed)} not as published")


def _rows(versions: tuple[AuditedVersion, ...]) -> list[tuple[str, ...]]:
    """One row for each task."""
    rows: list[tuple[str, ...]] = []
    for task in dict.fromkeys(one.task for one in versions):
        own = [one for one in versions if one.task == task]
        unequal = sum(not one.bytes_equal for one in own)
        replayed = [one.canary_difference for one in own if one.canary_difference is not None]
        failed = sum(one.problem is not None for one in own)
        rows.append(
            (
                task,
                str(len(own)),
                f"{unequal} differ" if unequal else "equal",
                f"{max(replayed):.1e}" if replayed else "–",
                f"{failed} failed" if failed else "unchanged",
            )
        )
    return rows
