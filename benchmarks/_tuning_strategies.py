"""How good a choice each way of searching has made for how many epochs."""

from __future__ import annotations

from typing import Any

from benchmarks._tuning_bank import Report, Setting, at_once, search, shipped_space
from benchmarks._tuning_cost import FRACTIONS, best_so_far, cost_of, grid_of, mean_of


def strategies(trials: int, epochs: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Searches and spaces by name; those that stop trials have more than they can pay for."""
    space = shipped_space()
    # Optuna draws a quarter of them at random first, so the number must be near the true one.
    many = min(3 * trials, trials * epochs)
    return {
        "grid": (
            {"sampler": "grid", "scheduler": "none", "trials": trials}, grid_of(space, trials)
        ),
        "random": ({"sampler": "random", "scheduler": "none", "trials": trials}, space),
        "random, ASHA": (
            {"sampler": "random", "scheduler": "asha", "trials": trials * epochs}, space
        ),
        "Optuna": ({"sampler": "optuna", "scheduler": "none", "trials": trials}, space),
        "Optuna, ASHA": ({"sampler": "optuna", "scheduler": "asha", "trials": many}, space),
    }  # fmt: skip


def measure(setting: Setting, trials: int, seeds: list[int]) -> Report:
    """Search each task in every way with every seed, each search alone, turn by turn.

    Args:
        setting: the bank.
        trials: whole ones that are paid for.
        seeds: of images, training and sampler at once.
    """
    cost = trials * setting.epochs
    figures: list[dict[str, Any]] = []
    for seed in seeds:
        setting.prepare(seed=seed)
        for task in setting.tasks:
            for name, (config, space) in strategies(trials, setting.epochs).items():
                bank = setting.bank(config, space, seed=seed)
                done = search(bank, task, at_once(setting.concurrent), cost=cost)
                figures.append(
                    {
                        "task": task,
                        "strategy": name,
                        "seed": seed,
                        "trials": len(done.trials),
                        "epochs": sum(map(cost_of, done.trials)),
                        "seconds": round(done.seconds, 2),
                        "best": best_so_far(done.trials, cost),
                    }
                )
    rows = tuple(
        _row([f for f in figures if (f["task"], f["strategy"]) == (task, name)])
        for task in setting.tasks
        for name in strategies(trials, setting.epochs)
    )
    return Report(
        title=f"validation accuracy of the choice, %, after a part of {cost} epochs; mean of seeds"
        f" {seeds}",
        columns=("task", "strategy", *(f"{part:.0%}" for part in FRACTIONS), "trials", "epochs",
                 "seconds"),
        rows=rows,
        figures=figures,
    )  # fmt: skip


def _row(runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """One strategy on one task over its seeds."""
    means = [mean_of([run["best"][index] for run in runs]) for index in range(len(FRACTIONS))]
    rest = [mean_of([run[key] for run in runs]) for key in ("trials", "epochs", "seconds")]
    return (
        runs[0]["task"],
        runs[0]["strategy"],
        *("–" if mean is None else f"{100 * mean:.1f}" for mean in means),
        *("–" if mean is None else f"{mean:.0f}" for mean in rest),
    )
