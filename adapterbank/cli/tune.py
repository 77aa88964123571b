"""The command that searches hyper-parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbank.cli import options, render, search_view, stage
from adapterbank.cli.render import Answer
from adapterbank.errors import InputError
from adapterbank.search import STORAGE

app = typer.Typer()


Task = Annotated[str | None, typer.Argument(metavar="TASK")]
Every = Annotated[bool, typer.Option("--all", help="Search for all tasks, one after the other.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a search that was interrupted.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Throw an earlier search away and begin again.")
]
Gpus = Annotated[
    float | None,
    typer.Option(min=0.0, help="Such as 0.25; by default 1 where there are GPUs, else 0."),
]
Cpus = Annotated[float | None, typer.Option(min=0.01, help="By default one for each thread of it.")]
Concurrent = Annotated[
    int | None, typer.Option(min=1, help="Trials at once; as many as there is room for.")
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", envvar="RAY_ADDRESS", help="A Ray cluster to use."),
]
StorageUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        envvar=STORAGE,
        help="Where trials keep their state: a folder, file://… or s3://…, which every node of the"
        " cluster must reach; the bank's work folder by default.",
    ),
]


@app.command("tune")
def tune(  # noqa: PLR0913  # options of the command line
    task: Task = None,
    bank: options.BankDir = None,
    *,
    every: Every = False,
    resume: Resume = False,
    fresh: Fresh = False,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = None,
    max_concurrent: Concurrent = None,
    address: Address = None,
    storage: StorageUri = None,
    as_json: options.Json = False,
) -> None:
    """Search a task's hyper-parameters: prompts, rank, kernel, learning rate.

    pipelines/params.yaml says what is searched and how much may be spent. The winner is written to
    work/TASK/best.json, where training reads it; `dvc repro` runs all of it.
    """
    opened = options.open_bank(bank)
    if resume and fresh:
        raise InputError(
            "--resume and --fresh exclude one another",
            fix="leave one of them out: --resume keeps the trials that are done",
        )
    if (task is None) != every:
        raise InputError(
            "expected the name of a task, or --all"
            if task is None
            else f"--all searches for every task, {task} among them",
            fix="adapterbank tune TASK, or adapterbank tune --all",
        )
    from adapterbank.search.space import searchable

    tasks, left_out = searchable(opened, task)
    if not as_json:
        for name in left_out:
            render.note(stage.nothing_to_search(name))
    for name in tasks:
        stage.make_ready(opened, name, quiet=as_json)
    from adapterbank.search import study

    where = study.Where(
        address=address,
        storage=storage,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
    )
    earlier: study.Earlier = "resume" if resume else "discard" if fresh else "refuse"
    searches = search_view.run(
        task or "--all",
        lambda view: study.tune(opened, tasks, view, where, earlier=earlier, note=view.note),
        quiet=as_json,
    )
    answer = Answer(
        {"searches": [search.content for search in searches], "left_out": left_out},
        [
            *(part for search in searches for part in search.text),
            f"Next: adapterbank train {task or 'TASK'}, or dvc repro, which also releases it",
        ],
    )
    render.answer(answer, as_json=as_json)
