"""Commands about the tasks a bank is configured to build: add, list, show, sample, remove."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.catalog import names
from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer, Table, cell
from adapterbank.data.left_out import sentences
from adapterbank.errors import ConflictError, InputError
from adapterbank.text import count, visible

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.bank.new_task import Source
    from adapterbank.bank.remove_task import Removal

app = typer.Typer(help="The tasks this bank builds.", no_args_is_help=True)

SPLITS = ("train", "val", "test")  # in the order of their use; data.base has them, with torch
METHODS = names("adapterbank.methods")
SEED = 42  # TaskConfig's own default, which is not written


@app.command("add")
def add(  # noqa: PLR0913  # each is an option of the command
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a-z, 0-9, '-' and '_'.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|URI",
            help="A folder of class folders, with or without train, val and test above them;"
            " torchvision://DTD and others; embedded://digits and others.",
        ),
    ],
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}.")] = "vapt",
    hyper: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A hyper-parameter of the method; repeatable."),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What differs from the profile; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of splits and training.")] = SEED,
    bank: options.BankDir = None,
    *,
    drop_copies: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE",
            help="Of images in two given splits, drop those of test (or val), or those of train.",
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Go on without what cannot be decoded.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Add a task to pipelines/params.yaml.

    Its name, data, method and settings are checked first, all images of a folder too; where
    anything is wrong nothing is written. Comments and order of the file stay.
    """
    opened = options.open_bank(bank)
    section: dict[str, Any] = {"data": data, "method": method}
    hypers = options.key_values(hyper or [], "--hyper")
    training = options.key_values(train or [], "--train")
    section |= {"hyper": hypers} if hypers else {}
    section |= {"train": training} if training else {}
    section |= {"seed": seed} if seed != SEED else {}
    section |= {"skip_unreadable": True} if skip_unreadable else {}
    section |= {"drop_copies": drop_copies} if drop_copies is not None else {}
    source = _check(opened, name, section, quiet=as_json)
    from adapterbank.config.params_file import add_task

    add_task(opened.root, name, section)
    text = [f"Task {name} is in pipelines/params.yaml."]
    if source.counts is not None:
        counts = ", ".join(f"{images} {split}" for split, images in source.counts.items())
        text.append(f"{len(source.classes)} classes; images: {counts}")
    text += [source.notes] if source.notes else []
    text += sentences(source.left_out)
    text.append(f"Next: dvc repro, which trains only {name}; or: adapterbank train {name}")
    content = {
        "task": name, "section": section, "classes": source.classes, "counts": source.counts,
        "left_out": [asdict(one) for one in source.left_out],
    }  # fmt: skip
    render.answer(Answer(content, text), as_json=as_json)


@app.command("list")
def list_tasks(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """List the tasks of pipelines/params.yaml."""
    opened = options.open_bank(bank)
    rows = [_row(opened, name) for name in opened.config.tasks]
    columns = ("task", "data", "method", ">seed", "prepared", "trained", ">versions", ">champion")
    text: list[str | Table] = ["No task yet. Next: adapterbank task add NAME --data DIR"]
    if rows:
        cells = [[_shown(value) for value in row.values()] for row in rows]
        text = [Table(columns, cells), f"Profile: {opened.config.profile}"]
    content = {"profile": opened.config.profile, "tasks": rows}
    render.answer(Answer(content, text), as_json=as_json)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show a task's settings, its prepared data and its versions."""
    opened = options.open_bank(bank)
    section = opened.config.task(name)
    row = _row(opened, name)
    splits = _prepared(opened, name)
    training = opened.config.training(name).model_dump()
    limits = opened.config.active.limits.model_dump()
    facts = [
        ("data", section.data),
        ("method", section.method),
        *((f"  {key}", str(value)) for key, value in section.hyper.items()),
        *((f"train {key}", cell(value)) for key, value in training.items()),
        *((f"limit {key}", cell(value)) for key, value in limits.items()),
        ("seed", str(section.seed)),
        ("prepared", "no: adapterbank train prepares it" if splits is None else "yes"),
    ]
    if splits is not None:
        facts.append(("classes", ", ".join(splits["classes"])))
        facts += [(f"images {split}", str(splits["counts"][split])) for split in SPLITS]
        facts += [("notes", splits["notes"])] if splits["notes"] else []
    facts += [("versions", str(row["versions"])), ("champion", cell(row["champion"]))]
    content = {**row, "hyper": section.hyper, "training": training, "limits": limits,
               "splits": splits}  # fmt: skip
    render.answer(Answer(content, [Table((name, ""), facts)]), as_json=as_json)


@app.command("sample")
def sample(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    number: Annotated[int, typer.Option("--count", min=1, max=10_000, help="How many images.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Made if missing; out/samples/NAME.")
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Write some test images as PNG files named by their true class."""
    opened = options.open_bank(bank)
    opened.config.task(name)
    from adapterbank.bank.samples import write_samples

    written = write_samples(opened, name, number, out or opened.root / "out" / "samples" / name)
    images = [{"image": path, "label": label} for path, label in written]
    text = [str(path) for path, _ in written]
    render.answer(Answer({"task": name, "images": images}, text), as_json=as_json)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the history.")] = "",
    bank: options.BankDir = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Build and answer a task no more.

    Takes it out of pipelines/params.yaml and its aliases away. Versions and history stay, and
    promote brings the answers back.
    """
    opened = options.open_bank(bank)
    if not yes:
        _ask(name)
    from adapterbank.bank.remove_task import remove_task

    removal = remove_task(opened, name, reason=reason)
    render.answer(_removed(removal), as_json=as_json)


def _check(bank: Bank, name: str, section: dict[str, Any], *, quiet: bool) -> Source:
    """Refuse whatever is wrong with a new task before anything is written; cheap checks first."""
    from adapterbank.bank import new_task
    from adapterbank.config.bank import check_task
    from adapterbank.records import check_new_task

    check_new_task(name)
    if name in bank.config.tasks:
        raise ConflictError(
            f"Task {name!r} exists already in this bank", fix=f"adapterbank task show {name}"
        )
    section["data"] = new_task.relative_uri(section["data"], bank.root, Path.cwd())
    checked = check_task(name, section)
    new_task.check_method(checked.method, checked.hyper, checked.train)
    with progress.bar(f"Reading the images of {name}", quiet=quiet) as bar:
        return new_task.check_data(bank, name, checked, bar)


def _row(bank: Bank, name: str) -> dict[str, Any]:
    section = bank.config.tasks[name]
    has_versions = name in bank.registry.tasks()
    return {
        "task": name,
        "data": section.data,
        "method": section.method,
        "seed": section.seed,
        "prepared": (bank.data(name) / "task.json").is_file(),
        "trained": bank.trained(name).is_dir(),
        "versions": len(bank.registry.versions(name)) if has_versions else 0,
        "champion": bank.registry.aliases(name).get("champion") if has_versions else None,
    }


def _prepared(bank: Bank, name: str) -> dict[str, Any] | None:
    """Read what ``prepare`` noted of the data, without torch."""
    from adapterbank.bank.bank import DataNote, read_note

    path = bank.data(name) / "task.json"
    if not path.is_file():
        return None
    return vars(read_note(path, DataNote, fix=f"dvc repro prepare@{name}"))


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else cell(value)


def _ask(name: str) -> None:
    """Ask on a terminal; elsewhere nobody could answer.

    Raises:
        InputError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise InputError(
            f"task remove {name} needs --yes where nobody can be asked",
            fix=f"adapterbank task remove {name} --yes",
        )
    typer.confirm(f"Build and answer {visible(name)} no more?", abort=True, err=True)


def _removed(removal: Removal) -> Answer:
    name = removal.task
    kept = "it had no version."
    if removal.versions:
        versions = count(removal.versions, "version")
        kept = f"its {versions} and their history are kept: adapterbank history {name}"
    text = [f"{name} is not in pipelines/params.yaml any more."] if removal.configured else []
    text += [
        f"{name}@{event.alias} was version {event.from_version}; it is gone."
        for event in removal.events
        if event.from_version is not None
    ]
    text.append(kept[0].upper() + kept[1:])
    if not removal.configured and not removal.events:
        text = [f"{name} is removed already; {kept}"]
    content = {
        "task": name,
        "configured": removal.configured,
        "aliases": {event.alias: event.from_version for event in removal.events},
        "versions": removal.versions,
        "mirror": removal.mirror,
    }
    note = (
        f"{name} is removed; only MLflow still shows its aliases, repeat the command to take"
        f" them away: {removal.mirror}"
    )
    return Answer(content, text, [] if removal.mirror is None else [note])
