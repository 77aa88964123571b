"""The command that searches hyper-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, render, search_view, stage
from adapterbank.cli.render import Answer
from adapterbank.errors import InputError

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank

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
Cpus = Annotated[float | None, typer.Option(min=0.01, help="1 by default; the threads of a trial.")]
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
        envvar=stage.STORAGE,
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

    What is searched, and how much may be spent, stands in pipelines/params.yaml. The winner goes to
    work/TASK/best.json, from where training takes it up: `dvc repro` runs all of it.
    """
    opened = options.open_bank(bank)
    if resume and fresh:
        raise InputError(
            "--resume and --fresh exclude one another",
            fix="leave one of them out: --resume keeps the trials that are done",
        )
    tasks, left_out = _searchable(opened, task, every=every, quiet=as_json)
    for name in tasks:
        stage.make_ready(opened, name, quiet=as_json)
    from adapterbank.search.study import Where

    searches = search_view.run(
        opened,
        tasks,
        where=Where(
            address=address,
            storage=storage,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            max_concurrent=max_concurrent,
        ),
        earlier="resume" if resume else "discard" if fresh else "refuse",
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


def _searchable(
    bank: Bank, task: str | None, *, every: bool, quiet: bool
) -> tuple[list[str], list[str]]:
    """The tasks that are meant, each with a space, and those that are left out, each with a note.

    Raises:
        InputError: there is none, or one that cannot be searched; nothing is fetched or prepared.
    """
    if (task is None) != every:
        raise InputError(
            "expected the name of a task, or --all"
            if task is None
            else f"--all searches for every task, {task} among them",
            fix="adapterbank tune TASK, or adapterbank tune --all",
        )
    from adapterbank.bank.plan import is_searched
    from adapterbank.search.space import search_of, space_of

    tasks = [task] if task is not None else sorted(bank.config.tasks)
    if not tasks:
        raise InputError("the bank has no task", fix="adapterbank task add NAME --data FOLDER")
    search_of(bank)  # a profile without a search is no search with nothing to choose
    left_out = [name for name in tasks if every and not is_searched(bank, name)]
    if len(left_out) == len(tasks):
        raise InputError(
            f"none of the bank's tasks has anything to search: {', '.join(tasks)}",
            fix="adapterbank train TASK, or leave something of a task's method open",
        )
    for name in left_out:
        if not quiet:
            render.note(stage.nothing_to_search(name))
    tasks = [name for name in tasks if name not in left_out]
    for name in tasks:
        space_of(bank, name)
    return tasks, left_out
