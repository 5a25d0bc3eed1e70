"""Evaluations of several optimizers for experiments, and the numbers of their reports.

`evaluate_into` writes `runs.csv`, a row per run, and `curves.csv`, the data of figures.
`RunTable` reads `runs.csv`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from learned_optimizer.utils.csv_log import read_csv
from meta_training.evaluate import find_tasks
from meta_training.evaluation.comparison import EvaluationConfig, Result, evaluate
from meta_training.evaluation.figures import write_figures
from meta_training.evaluation.tables import write_tables
from meta_training.experiments.experiment import Job
from meta_training.optimizers import TrainedWeights

RUNS = "runs.csv"
CURVES = "curves.csv"
# The columns of `RUNS` that stay text.
_TEXT = ("optimizer", "family", "task")


def evaluate_tasks(
    settings: Mapping[str, Any],
    weights: Sequence[TrainedWeights],
    baselines: Sequence[str],
    cache: pathlib.Path,
    log: Callable[[str], None],
) -> list[Result]:
    """Trains the tasks of the settings, unless the runs are in the cache.

    The settings name `sets`, `tasks`, `steps`, `seeds`, and where they are needed
    `records`, `record_every`, `learning_rates` and `initial_rates`.
    """
    known = {field.name for field in dataclasses.fields(EvaluationConfig)}
    return evaluate(
        weights,
        find_tasks(*settings["sets"], only=settings["tasks"] or ()),
        EvaluationConfig(**{name: settings[name] for name in known & {*settings}}),
        cache,
        baselines,
        log,
    )


def evaluate_into(
    job: Job,
    weights: Sequence[TrainedWeights],
    baselines: Sequence[str] = (),
    figures: bool = True,
) -> None:
    """Evaluates and writes tables and figures to the folder of the job."""
    results = evaluate_tasks(job.settings, weights, baselines, job.cache, job.log)
    write_tables(results, job.folder)
    if figures:
        write_figures(results, job.folder)


class RunTable:
    """The rows of `runs.csv`, and the numbers for findings."""

    def __init__(self, folder: pathlib.Path):
        self.rows = read_csv(folder / RUNS, _TEXT)
        self.optimizers = list(dict.fromkeys(row["optimizer"] for row in self.rows))
        self.tasks = list(dict.fromkeys(row["task"] for row in self.rows))

    def by_rate(self, optimizer: str, task: str, column: str) -> dict[float, float]:
        """Means over seeds of a column, by learning rate."""
        found: dict[float, list[float]] = {}
        for row in self.rows:
            if (row["optimizer"], row["task"]) == (optimizer, task):
                found.setdefault(row["rate"], []).append(row[column])
        return {rate: float(np.mean(values)) for rate, values in found.items()}

    def default_rows(self, optimizer: str) -> list[dict]:
        """Its rows at its default learning rate."""
        return [
            row
            for row in self.rows
            if row["optimizer"] == optimizer and row["is_default_rate"]
        ]

    def default_rate(self, optimizer: str) -> float:
        """Its default learning rate."""
        return self.default_rows(optimizer)[0]["rate"]

    def untuned(self, optimizer: str, column: str) -> np.ndarray:
        """`[tasks]` means over seeds at the default rate."""
        rate = self.default_rate(optimizer)
        rates = (self.by_rate(optimizer, task, column) for task in self.tasks)
        return np.array([means[rate] for means in rates])

    def tuned(self, optimizer: str, column: str) -> np.ndarray:
        """`[tasks]` means over seeds at the rate that is best in the same column."""
        rates = (self.by_rate(optimizer, task, column) for task in self.tasks)
        return np.array([np.nanmin(list(means.values())) for means in rates])


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural but for 1."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def describe_evaluation(folder: pathlib.Path, settings, noun: str = "task") -> str:
    """The size of an evaluation in words, counted from its runs."""
    table = RunTable(folder)
    draws = len({row["seed"] for row in table.rows})
    return (
        f"{count(len(table.tasks), noun)}, {count(draws, 'draw')} of each, "
        f"{settings['steps']} steps"
    )


def link(folder: pathlib.Path, *names: str) -> str:
    """Links to CSV files of a folder, which may be compressed."""
    found = [name if (folder / name).is_file() else f"{name}.xz" for name in names]
    return ", ".join(f"[{name}]({name})" for name in found)
