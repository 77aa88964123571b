"""How often the gate on accuracy refuses: a planted regression, and no change at all.

    python -m benchmarks.gates

A pool of images is made that a champion and a challenger answered, with a given share of images on
which the two differ and a given fall of accuracy. Each repeat draws a validation set of it with
replacement (bootstrap) and judges it by the gate, at the bank's default terms. The last table is
the reason for the default of ``max_drop``: how often a challenger as good is refused at others.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapterbank.config.gates import GateConfig
from adapterbank.release.compare import compare_answers
from adapterbank.release.gates import is_worse
from benchmarks._machine import machine

_POOL = 20_000
_ACCURACY = 0.8  # of the champion; the test does not depend on it
_IMAGES = (200, 500, 1000, 2000, 5000)
_DIFFERING = (0.04, 0.06, 0.10, 0.15)
_FEW = (50, 80, 100, 200)
_DROPS = (0.03, 0.05, 0.08, 0.1, 1.0)


def answer_pool(differing: float, fall: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Make the answers of a challenger and a champion to a pool of images.

    Args:
        differing: share of images that exactly one of them gets right.
        fall: accuracy of the champion less the challenger's.
    """
    lost, gained = (round(_POOL * (differing + sign * fall) / 2) for sign in (1, -1))
    both = round(_POOL * _ACCURACY) - lost
    challenger, champion = np.zeros((2, _POOL), dtype=bool)
    challenger[: both + gained] = True
    champion[:both] = True
    champion[both + gained : both + gained + lost] = True
    return challenger, champion


def count_refused(
    images: int, differing: float, fall: float, gates: GateConfig, repeats: int = 100, seed: int = 0
) -> int:
    """Count the repeats in which the gate refuses the challenger."""
    generator = np.random.default_rng([seed, images, round(1e4 * differing), round(1e4 * fall)])
    challenger, champion = answer_pool(differing, fall)
    refused = 0
    for _ in range(repeats):
        drawn = generator.integers(_POOL, size=images)
        comparison = compare_answers(challenger[drawn], champion[drawn])
        refused += is_worse(comparison, gates, allowed=gates.max_regression)
    return refused


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    console, terms = Console(width=100), GateConfig()
    console.print(machine())
    console.print(f"{repeats} repeats; {terms}")
    for title, fall in (
        ("3 points worse: refused", 0.03),
        ("1 point worse: refused", 0.01),
        ("as good: passed", 0.0),
    ):
        table = _table(title, [f"{share:.0%} differ" for share in _DIFFERING])
        for images in _IMAGES:
            counts = [count_refused(images, share, fall, terms, repeats) for share in _DIFFERING]
            table.add_row(str(images), *(str(c if fall else repeats - c) for c in counts))
        console.print(table)
    table = _table("as good, 15% differ: passed, by max_drop", [str(drop) for drop in _DROPS])
    for images in _FEW:
        counts = [
            count_refused(images, 0.15, 0.0, GateConfig(max_drop=drop), repeats) for drop in _DROPS
        ]
        table.add_row(str(images), *(str(repeats - count) for count in counts))
    console.print(table)


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title)
    for name in ("images", *columns):
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    main()
