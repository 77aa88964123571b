"""The command that proves zero forgetting: audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer, Table
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
    device: options.BankDevice = None,
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
    with progress.bar("Auditing", quiet=as_json) as bar:
        from adapterbank.continual.audit import REPORT, audit

        report = audit(opened, before=before, device=device, progress=bar)
    text = [*audit_text(report), f"Report: {REPORT}"]
    answer = Answer(report.as_json(), text, exit_code=0 if report.ok else FAILED)
    render.answer(answer, as_json=as_json)


def audit_text(report: AuditReport) -> list[str | Table]:
    """Write the result of an audit, task by task."""
    columns = ("task", ">versions", "bytes", ">canary differs by", "result")
    moment = "" if report.before is None else f" published before {report.before}"
    result = "nothing was forgotten" if report.ok else f"{len(report.failed)} not as published"
    problem = report.backbone_problem
    return [
        *([Table(columns, _rows(report.versions))] if report.versions else []),
        f"Backbone: {report.backbone.uri} ({report.backbone.fingerprint})",
        *([] if problem is None else [f"FAILED backbone: {problem}"]),
        *(f"FAILED {version.name}: {version.problem}" for version in report.failed),
        f"{count(len(report.versions), 'version')}{moment} checked: {result}",
    ]


def _rows(versions: tuple[AuditedVersion, ...]) -> list[tuple[str, ...]]:
    """One row for each task."""
    rows: list[tuple[str, ...]] = []
    for task in dict.fromkeys(version.task for version in versions):
        own = [version for version in versions if version.task == task]
        unequal = sum(not version.bytes_equal for version in own)
        replayed = [v.canary_difference for v in own if v.canary_difference is not None]
        failed = sum(version.problem is not None for version in own)
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
