"""Computes the reference table, task by task; what is done is not done again."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from learned_optimizer.utils.arrays import load_arrays, save_arrays
from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.tasks.base import Task
from meta_training.whole_runs.reference import HORIZONS, LOSS_FLOOR, ReferenceTable

# Without and with its horizon.
REFERENCES = ("NAdamW constant", "NAdamW")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SEEDS = 5
_RECORDS = 16


def compute_table(
    tasks: Sequence[Task],
    folder: pathlib.Path,
    horizons: Sequence[int] = HORIZONS,
    rates: Sequence[float] = RATES,
    seeds: int = SEEDS,
    report: Callable[[str], None] = lambda name: None,
) -> ReferenceTable:
    """The table of these tasks.

    Args:
        tasks: Those that get a row.
        folder: Where the rows are kept, a file each: a row that is there is read.
        horizons: Ascending numbers of steps.
        rates: Learning rates, of which the best counts.
        seeds: Draws of each task.
        report: Called with the name of each task that is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    families: dict = {}
    for task in dict.fromkeys(tasks):
        noise = (task.noise_stdev > 0, task.gradient_zero_probability > 0)
        families.setdefault((task.batch_key, noise), []).append(task)
    rows = {}
    for members in families.values():
        runs = _ReferenceRuns(members[0], horizons, rates, seeds)
        for task in members:
            path = folder / f"{task.name}.npz"
            if not path.is_file():
                save_arrays(path, runs.row(task))
                report(task.name)
            rows[task.name] = load_arrays(path)
    names = tuple(rows)
    return ReferenceTable(
        names,
        np.array(horizons),
        np.array([_record_steps(horizon) for horizon in horizons]),
        np.array([rows[name]["losses"] for name in names], np.float32),
        np.array([rows[name]["rates"] for name in names], np.float32),
    )


class _ReferenceRuns:
    """The runs of a family of tasks: one program without a horizon, one with it."""

    def __init__(self, task, horizons, rates, seeds):
        self._horizons, self._rates, self._seeds = horizons, rates, seeds
        self._loops: list[TrainingLoop] = []

    def row(self, task: Task) -> dict[str, np.ndarray]:
        """`losses` `[2, horizons, records]` and `rates` `[2, horizons]` of a task."""
        draws = draw_runs([task], range(self._seeds), max(self._horizons))
        if not self._loops:
            draw_of_run = np.tile(np.arange(self._seeds), len(self._rates))
            self._loops = [
                TrainingLoop(task, BASELINES[name][0], draw_of_run, draws)
                for name in REFERENCES
            ]
        for loop in self._loops:
            loop.load(draws)
        marks = [_record_steps(horizon) for horizon in self._horizons]
        # Without a horizon one run serves all of them.
        every = np.sort(np.concatenate(marks))
        unaware = self._losses(0, every)
        curves = [
            [unaware[np.searchsorted(every, own)] for own in marks],
            [self._losses(1, own) for own in marks],
        ]
        best = [[int(np.argmin(losses[-1])) for losses in curve] for curve in curves]
        return {
            "losses": np.array(
                [
                    [losses[:, rate] for losses, rate in zip(*both, strict=True)]
                    for both in zip(curves, best, strict=True)
                ]
            ),
            "rates": np.array(self._rates)[np.array(best)],
        }

    def _losses(self, which, marks):
        """`[records, rates]`, the geometric mean over seeds."""
        arguments = {
            "learning_rate": np.repeat(self._rates, self._seeds).astype(np.float32),
            "total_steps": np.int32(marks[-1]),
        }
        losses = self._loops[which](marks, arguments).losses
        losses = np.where(np.isfinite(losses), losses, np.inf)
        logs = np.log(np.maximum(losses, LOSS_FLOOR))
        return np.exp(logs.reshape(len(marks), -1, self._seeds).mean(axis=-1))


def _record_steps(horizon) -> np.ndarray:
    """`[records]` steps from 0 to the horizon, evenly in the logarithm."""
    marks = np.geomspace(1, horizon, _RECORDS)
    return np.concatenate([[0], np.round(marks)]).astype(np.int32)
