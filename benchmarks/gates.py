"""How often the gate on accuracy refuses: a planted regression, and no change at all.

    python -m benchmarks.gates

A pool of images is made that a champion and a challenger answered, with a given share of images on
which the two differ and a given fall of accuracy. Each repeat draws a validation set of it with
replacement (bootstrap) and judges it by the gate, at the bank's default terms. The table of few
images is what a version as good has to expect there. The last one is of ten versions in a row, each
compared with the present champion and with the best there was, on the same images.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapterbank.config.gates import GateConfig
from adapterbank.release.gates import Right, passes_accuracy
from benchmarks._machine import machine

_POOL = 20_000
_ACCURACY = 0.8  # of the champion; the test does not depend on it
_IMAGES = (200, 500, 1000, 2000, 5000)
_DIFFERING = (0.04, 0.06, 0.10, 0.15)
_FEW = (20, 50, 80, 200)
_FEW_DIFFERING = (0.05, 0.10, 0.15, 0.20, 0.30)
_CHAIN = (80, 200, 1000)


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
        refused += not passes_accuracy(gates, challenger[drawn], [champion[drawn]])
    return refused


def ten_releases(
    images: int, fall: float, gates: GateConfig, generator: np.random.Generator
) -> list[Right]:
    """Make ten versions one after the other, each ``fall`` worse than the champion in truth.

    Each answers a tenth of the images differently than the champion.

    Returns:
        The answers of the champions to the same images, oldest first.
    """
    champions: list[Right] = [generator.random(images) < _ACCURACY]
    for _ in range(10):
        champion, drawn = champions[-1], generator.random(images)
        accuracy = float(champion.mean())
        lost, gained = (0.1 + fall) / 2 / accuracy, (0.1 - fall) / 2 / (1 - accuracy)
        challenger = np.where(champion, drawn >= lost, drawn < gained)
        if passes_accuracy(gates, challenger, champions):
            champions.append(challenger)
    return champions


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
    table = _table("as good, few images: passed", [f"{share:.0%}" for share in _FEW_DIFFERING])
    for images in _FEW:
        counts = [count_refused(images, share, 0.0, terms, repeats) for share in _FEW_DIFFERING]
        table.add_row(str(images), *(str(repeats - count) for count in counts))
    console.print(table)
    names = ("passed of ten as good", "of ten 2 points worse", "points lost, mean", "most")
    table = _table("ten versions in a row, on the same images", list(names))
    for images in _CHAIN:
        generator = np.random.default_rng(images)
        good, bad = (
            [ten_releases(images, fall, terms, generator) for _ in range(repeats)]
            for fall in (0.0, 0.02)
        )
        passed = [np.mean([len(chain) - 1 for chain in chains]) for chains in (good, bad)]
        lost = [100 * (max(c.mean() for c in chain) - chain[-1].mean()) for chain in bad]
        figures = (*passed, np.mean(lost), max(lost))
        table.add_row(str(images), *(f"{figure:.1f}" for figure in figures))
    console.print(table)


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title)
    for name in ("images", *columns):
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    main()
