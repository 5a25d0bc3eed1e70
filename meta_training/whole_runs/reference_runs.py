"""Computes the reference table, task by task; what is done is not done again."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.tasks.base import Task, grouped
from meta_training.whole_runs.reference import HORIZONS, LOSS_FLOOR, ReferenceTable

# Without and with its horizon.
REFERENCES = ("NAdamW constant", "NAdamW")
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SEEDS = 5
_RECORDS = 16


def compute_table(
    tasks: Sequence[Task],
    path: pathlib.Path,
    horizons: Sequence[int] = HORIZONS,
    rates: Sequence[float] = RATES,
    seeds: int = SEEDS,
    report: Callable[[str], None] = lambda name: None,
) -> ReferenceTable:
    """Adds the rows that a table lacks of these tasks, and writes it after each.

    The best of the rates counts; `seeds` are the draws of each task, and `report` gets
    the name of each that is done.

    Raises:
        ValueError: The file is damaged, or a table of other horizons.
    """
    steps = np.array([_record_steps(horizon) for horizon in horizons])
    curves = np.zeros((0, 2, *steps.shape), np.float32)
    rates_of_none = np.zeros((0, 2, len(steps)), np.float32)
    table = ReferenceTable((), np.array(horizons), steps, curves, curves, rates_of_none)
    if path.is_file():
        found = ReferenceTable.load(path)
        if not np.array_equal(found.steps, steps):
            raise ValueError(
                f"the table must be one of the horizons {list(horizons)}. "
                f"Received: {str(path)!r} with {found.horizons.tolist()}"
            )
        table = found
    missing = [task for task in dict.fromkeys(tasks) if task.name not in table.tasks]
    for members in grouped(missing, lambda task: task.program_key):
        runs = _ReferenceRuns(horizons, rates, seeds)
        for task in members:
            row = runs.row(task)
            table = dataclasses.replace(
                table,
                tasks=(*table.tasks, task.name),
                **{
                    name: np.concatenate([getattr(table, name), array[np.newaxis]])
                    for name, array in row.items()
                },
            )
            table.save(path)
            report(task.name)
    return table


class _ReferenceRuns:
    """The runs of a family of tasks: one program without a horizon, one with it."""

    def __init__(self, horizons, rates, seeds):
        self._horizons, self._rates, self._seeds = horizons, rates, seeds
        self._loops: list[TrainingLoop] = []

    def row(self, task: Task) -> dict[str, np.ndarray]:
        """The fields of the table for a task; the best rate has the least last loss."""
        draws = draw_runs([task], range(self._seeds), max(self._horizons))
        draw_of_run = np.tile(np.arange(self._seeds), len(self._rates))
        self._loops = self._loops or [
            TrainingLoop(task, BASELINES[name][0], draw_of_run, draws)
            for name in REFERENCES
        ]
        for loop in self._loops:
            loop.load(draws)
        marks = [_record_steps(horizon) for horizon in self._horizons]
        # Without a horizon one run serves all of them.
        every = np.sort(np.concatenate(marks))
        unaware = self._curves(0, every)
        curves = np.array(
            [
                [unaware[:, np.searchsorted(every, own)] for own in marks],
                [self._curves(1, own) for own in marks],
            ]
        )
        # `[2, horizons, kind of loss, records, rates]`: the last record counts.
        best = curves[:, :, 0, -1].argmin(axis=-1)
        chosen = np.take_along_axis(curves, best[:, :, None, None, None], axis=-1)
        chosen = chosen[..., 0].astype(np.float32)
        return {
            "losses": chosen[:, :, 0],
            "evaluation_losses": chosen[:, :, 1],
            "rates": np.array(self._rates, np.float32)[best],
        }

    def _curves(self, which, marks):
        """`[2, records, rates]`, geometric means over seeds of both kinds of losses."""
        arguments = {
            "learning_rate": np.repeat(self._rates, self._seeds).astype(np.float32),
            "total_steps": np.int32(marks[-1]),
        }
        found = self._loops[which](marks, arguments)
        losses = np.stack([found.losses, found.evaluation_losses])
        losses = np.where(np.isfinite(losses), losses, np.inf)
        logs = np.log(np.maximum(losses, LOSS_FLOOR))
        return np.exp(logs.reshape(2, len(marks), -1, self._seeds).mean(axis=-1))


def _record_steps(horizon) -> np.ndarray:
    """`[records]` steps from 0 to the horizon, evenly in the logarithm."""
    marks = np.geomspace(1, horizon, _RECORDS)
    return np.concatenate([[0], np.round(marks)]).astype(np.int32)
