"""The accuracy matrix in MLflow: one run for each state of it, in the experiment ``bank``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from adapterbank.integrations.figures import accuracy_curves, accuracy_matrix, png
from adapterbank.integrations.mlflow.runs import find_runs, open_run

EXPERIMENT: Final = "bank"

_DIGEST: Final = "adapterbank.matrix"
_TABLE: Final = "accuracy_matrix.json"


def show_matrix(
    root: Path,
    *,
    digest: str,
    table: Sequence[Sequence[Any]],
    metrics: Callable[[], Mapping[int, Mapping[str, float]]],
) -> bool:
    """Log the matrix as a table and as pictures, unless a run shows this very one.

    Args:
        root: the bank.
        digest: of the matrix; the run has it as a tag from its end on.
        table: a header, ``step, learned, kind, task, version, oracle, routed, identity,
            abstained``, and a row for each task at each step.
        metrics: gives metrics by name for some steps, counted from 1; asked only where they are
            logged.

    Returns:
        Whether anything was logged.

    Raises:
        AdapterBankError: the store refused or did not answer.
    """
    if find_runs(root, EXPERIMENT, {_DIGEST: digest}):
        return False
    last = table[-1]
    content = {"columns": list(table[0]), "data": [list(row) for row in table[1:]]}
    with open_run(
        root, experiment=EXPERIMENT, name=f"step {last[0]}: {last[1]}", params={},
        tags={"adapterbank.kind": str(last[2])},
    ) as run:  # fmt: skip
        for step, values in sorted(metrics().items()):
            run.epoch(step, values)
        run.json(_TABLE, content)
        # What MLflow's own log_table leaves beside the file, so that its pages show it as a table.
        run.tags({"mlflow.loggedArtifacts": json.dumps([{"path": _TABLE, "type": "table"}])})
        rows = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
        for figure in ("oracle", "routed"):
            run.figure(f"{figure}.png", png(accuracy_matrix(rows, figure)))
        run.figure("curves.png", png(accuracy_curves(_means(rows))))
        run.flush()
        run.tags({_DIGEST: digest})
    return True


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The mean over tasks of each figure after each step; None where nothing was measured."""
    shares: dict[str, dict[int, list[float]]] = {"oracle": {}, "routed": {}, "identity": {}}
    for row in rows:
        for figure, steps in shares.items():
            measured = steps.setdefault(row["step"], [])
            measured += [] if row[figure] is None else [row[figure]]
    return {
        figure: [fmean(step) if step else None for step in steps.values()]
        for figure, steps in shares.items()
    }
