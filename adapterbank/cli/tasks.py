"""Commands about the tasks a bank is configured to build: add, list, show, sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.catalog import names
from adapterbank.cli import options, render
from adapterbank.errors import ConflictError, InputError

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.bank.new_task import Source

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
    as_json: options.Json = False,
) -> None:
    """Add a task to pipelines/params.yaml.

    Its name, data, method and settings are checked first; where anything is wrong nothing is
    written. Comments and order of the file stay.
    """
    opened = options.open_bank(bank)
    section: dict[str, Any] = {"data": data, "method": method}
    hypers = options.key_values(hyper or [], "--hyper")
    training = options.key_values(train or [], "--train")
    section |= {"hyper": hypers} if hypers else {}
    section |= {"train": training} if training else {}
    section |= {"seed": seed} if seed != SEED else {}
    source = _check(opened, name, section)
    section["data"] = source.uri
    from adapterbank.config.params_file import add_task

    add_task(opened.root, name, section)
    if as_json:
        counts = None if source.counts is None else dict(source.counts)
        render.print_json(
            {"task": name, "section": section, "classes": list(source.classes), "counts": counts}
        )
        return
    render.line(f"Task {name} is in pipelines/params.yaml.")
    if source.counts is not None:
        counted = ", ".join(f"{count} {split}" for split, count in source.counts.items())
        render.line(f"{len(source.classes)} classes; images: {counted}")
    if source.notes:
        render.line(source.notes)
    render.line(f"Next: dvc repro, which trains only {name}; or: adapterbank train {name}")


@app.command("list")
def list_tasks(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """List the tasks of pipelines/params.yaml."""
    opened = options.open_bank(bank)
    rows = [_row(opened, name) for name in opened.config.tasks]
    if as_json:
        render.print_json({"profile": opened.config.profile, "tasks": rows})
        return
    if not rows:
        render.line("No task yet. Next: adapterbank task add NAME --data DIR")
        return
    render.table(
        ("task", "data", "method", ">seed", "prepared", "trained", ">versions", ">champion"),
        [
            (
                row["task"],
                row["data"],
                row["method"],
                str(row["seed"]),
                "yes" if row["prepared"] else "no",
                "yes" if row["trained"] else "no",
                str(row["versions"]),
                "–" if row["champion"] is None else str(row["champion"]),
            )
            for row in rows
        ],
    )
    render.line(f"Profile: {opened.config.profile}")


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
    content: dict[str, Any] = {
        **row,
        "hyper": section.hyper,
        "training": opened.config.training(name).model_dump(),
        "limits": opened.config.active.limits.model_dump(),
        "splits": _prepared(opened, name),
    }
    if as_json:
        render.print_json(content)
        return
    splits = content["splits"]
    facts = [
        ("data", section.data),
        ("method", section.method),
        *((f"  {key}", str(value)) for key, value in section.hyper.items()),
        *((f"train {key}", _shown(value)) for key, value in content["training"].items()),
        *((f"limit {key}", _shown(value)) for key, value in content["limits"].items()),
        ("seed", str(section.seed)),
        ("prepared", "no: adapterbank train prepares it" if splits is None else "yes"),
    ]
    if splits is not None:
        facts.append(("classes", ", ".join(splits["classes"])))
        facts += [(f"images {name}", str(splits["counts"][name])) for name in SPLITS]
        facts += [("notes", splits["notes"])] if splits["notes"] else []
    facts += [("versions", str(row["versions"])), ("champion", _shown(row["champion"]))]
    render.table((name, ""), facts)


@app.command("sample")
def sample(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many images.")] = 8,
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
    written = write_samples(opened, name, count, out or opened.root / "out" / "samples" / name)
    if as_json:
        images = [{"image": str(path), "label": label} for path, label in written]
        render.print_json({"task": name, "images": images})
        return
    for path, _ in written:
        render.line(str(path))


def write_samples(bank: Bank, task: str, count: int, out: Path) -> list[tuple[Path, str]]:
    """Write test images class by class, one of each before a second of any.

    Returns:
        The files and their true classes.
    """
    import re

    from PIL import Image

    from adapterbank.data.store import load_task

    data = load_task(bank.data(task))
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(data.test.labels.tolist()):
        rows.setdefault(label, []).append(row)
    # (rank within its class, class): sorting takes one of each class at a time
    order = sorted(
        (rank, label, row) for label, own in rows.items() for rank, row in enumerate(own)
    )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for rank, label, row in order[:count]:
        safe = re.sub(r"[^\w.-]+", "_", data.classes[label]).strip(".") or "class"
        path = out / f"{safe}-{rank + 1}.png"
        Image.fromarray(data.test.images[row].permute(1, 2, 0).numpy()).save(path)
        written.append((path, data.classes[label]))
    return written


def _check(bank: Bank, name: str, section: dict[str, Any]) -> Source:
    """Refuse whatever is wrong with a new task before anything is written; cheap checks first."""
    from adapterbank.config.bank import check_task
    from adapterbank.records import check_new_task

    check_new_task(name)
    if name in bank.config.tasks:
        raise ConflictError(
            f"Task {name!r} exists already in this bank", fix=f"adapterbank task show {name}"
        )
    data = str(section["data"])
    if "://" not in data and not Path(data).expanduser().is_dir():
        raise InputError(f"--data {data}: no such folder, expected one of class folders")
    from adapterbank.bank import new_task

    new_task.check_method(section["method"], section.get("hyper", {}), section.get("train", {}))
    uri = new_task.relative_uri(data, bank.root, Path.cwd())
    return new_task.check_data(bank, check_task(name, section | {"data": uri}))


def _row(bank: Bank, name: str) -> dict[str, Any]:
    section = bank.config.tasks[name]
    known = name in bank.registry.tasks()
    return {
        "task": name,
        "data": section.data,
        "method": section.method,
        "seed": section.seed,
        "prepared": (bank.data(name) / "task.json").is_file(),
        "trained": bank.trained(name).is_dir(),
        "versions": len(bank.registry.versions(name)) if known else 0,
        "champion": bank.registry.aliases(name).get("champion") if known else None,
    }


def _prepared(bank: Bank, name: str) -> dict[str, Any] | None:
    """Read what ``prepare`` noted of the data, without torch."""
    from adapterbank.bank.bank import read_json

    path = bank.data(name) / "task.json"
    if not path.is_file():
        return None
    note = read_json(path, fix=f"dvc repro prepare@{name}")
    return {key: note[key] for key in ("classes", "counts", "digest", "source", "notes")}


def _shown(value: object) -> str:
    return "–" if value is None else str(value)
