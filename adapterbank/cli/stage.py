"""The stages of ``dvc.yaml``, one command each; hidden, because ``dvc repro`` calls them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, progress, render, summary, work
from adapterbank.errors import InputError
from adapterbank.text import short_digest

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.release.moves import ReleaseReport

app = typer.Typer()


class Stage(StrEnum):
    """The stages of ``dvc.yaml``."""

    BACKBONE = "backbone"
    PREPARE = "prepare"
    TUNE = "tune"
    TRAIN = "train"
    EVALUATE = "evaluate"
    REGISTER = "register"
    RELEASE = "release"


@app.command("stage", hidden=True)
def stage(
    name: Annotated[Stage, typer.Argument(metavar="NAME")],
    task: Annotated[str | None, typer.Argument(metavar="TASK")] = None,
    device: options.Device = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Run one stage of dvc.yaml, as `dvc repro` does.

    --device is of the release alone; for the others train.device of the task says where.
    """
    opened = options.open_bank(bank)
    whole = name in {Stage.BACKBONE, Stage.RELEASE}
    if whole != (task is None):
        raise InputError(f"stage {name}: {'takes no task' if whole else 'needs a task'}")
    if device is not None and name is not Stage.RELEASE:
        raise InputError(f"stage {name} takes no --device: train.device of the task says where")
    result = _run_stage(opened, name, task or "", device=device, quiet=as_json)
    if as_json:
        render.print_json({"stage": name.value, **result})


def _run_stage(
    bank: Bank, name: Stage, task: str, *, device: str | None, quiet: bool
) -> dict[str, Any]:
    if name is Stage.BACKBONE:
        record = work.fetch(bank, quiet=quiet)
        return {"uri": record.uri, "fingerprint": record.fingerprint}
    if name is Stage.RELEASE:
        return _release(bank, device=device, quiet=quiet)
    bank.config.task(task)
    run = {
        Stage.PREPARE: work.prepare,
        Stage.TUNE: _tune,
        Stage.TRAIN: _train,
        Stage.EVALUATE: _evaluate,
        Stage.REGISTER: _register,
    }[name]
    return run(bank, task, quiet=quiet)


def _tune(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    return {"task": task, "search": work.tune_stage(bank, task, quiet=quiet)}


def _train(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    result = work.train(bank, task, quiet=quiet)
    if not quiet:
        work.print_trained(result)
    return result


def _evaluate(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    metrics = work.evaluate(bank, task, quiet=quiet)
    if not quiet:
        work.print_metrics(task, metrics)
    return {"task": task, "metrics": metrics}


def _register(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    from adapterbank.pipeline import register

    version = register.register(bank, task)
    if not quiet:
        render.line(f"{version} is registered: sha256:{short_digest(version.digest)}")
    return summary.version_json(version)


def _release(bank: Bank, *, device: str | None, quiet: bool) -> dict[str, Any]:
    from adapterbank.release.moves import release

    with progress.bar("Judging new versions", quiet=quiet) as shown:

        def show(report: ReleaseReport) -> None:  # also of a release that then fails
            shown.close()
            if not quiet:
                _print_release(report)

        report = release(bank, progress=shown, show=show, device=device)
    return {"verdicts": [verdict.as_json() for verdict in report.verdicts]}


def _print_release(report: ReleaseReport) -> None:
    rows = [(v.task, str(v.version), v.outcome, v.reason) for v in report.verdicts]
    render.table(("task", ">version", "outcome", "why"), rows)
    for sentence in report.notes:
        render.note(sentence)
