"""What runs are trained on: instances, starts, minibatches, and when to record.

A *draw* is one instance of a task with one start and one order of minibatches: a task
and a seed. Every optimizer and learning rate trains on the same draws.
"""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from meta_training.tasks.base import Task, stack_instances, stack_parameters


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws of tasks of one `batch_key`, stacked.

    Attributes:
        tasks: the task of each draw.
        instance: `{name: [draws, ...]}`.
        start: `[draws, *shape]` arrays, one for each parameter tensor.
        row_indices: `[steps, draws, batch]` int32, the minibatch of each step;
            `[steps, draws, 0]` for tasks that use all rows, or have none.
    """

    tasks: tuple[Task, ...]
    instance: dict[str, np.ndarray]
    start: list[np.ndarray]
    row_indices: np.ndarray

    def per_draw(self, name: str) -> np.ndarray:
        """`[draws]` float32 values of a field of the tasks."""
        return np.array([getattr(task, name) for task in self.tasks], np.float32)


def draw_runs(tasks: Sequence[Task], seeds: Sequence[int], steps: int) -> Draws:
    """Draws every task with every seed, and minibatches for so many steps.

    A draw depends on the task's name, the seed and the number of steps alone, not on
    what is drawn beside it.

    Raises:
        ValueError: the tasks have not one `batch_key`.
    """
    if len({task.batch_key for task in tasks}) != 1:
        raise ValueError(
            "tasks drawn together must have one batch_key. "
            f"Received: {[task.name for task in tasks]}"
        )
    instances, starts, rows = [], [], []
    for task in tasks:
        for seed in seeds:
            generator = np.random.default_rng((seed, zlib.crc32(task.name.encode())))
            instances.append(task.sample_instance(generator))
            starts.append(task.sample_parameters(generator))
            rows.append(_minibatches(task, steps, generator))
    return Draws(
        tasks=tuple(task for task in tasks for _ in seeds),
        instance=stack_instances(instances),
        start=stack_parameters(starts),
        row_indices=np.stack(rows, axis=1),
    )


def _minibatches(task, steps, generator) -> np.ndarray:
    """`[steps, batch]` row indices in shuffled epochs, remainders dropped."""
    if task.batch_size is None:
        return np.zeros((steps, 0), np.int32)
    per_epoch = task.rows // task.batch_size
    epochs = -(-steps // per_epoch)
    order = np.stack([generator.permutation(task.rows) for _ in range(epochs)])
    order = order[:, : per_epoch * task.batch_size].astype(np.int32)
    return order.reshape(-1, task.batch_size)[:steps]


def record_steps(steps: int, records: int, every: int | None = None) -> np.ndarray:
    """When losses are recorded: int32 in ascending order, from 0 to `steps`.

    There are at most `records`, half evenly spaced, half evenly in the logarithm, so
    that a curve can be drawn on either axis; or one `every` so many steps.
    """
    if every is not None:
        marks = np.arange(0, steps, every)
    else:
        even = np.linspace(0, steps, max(2, records // 2))
        marks = np.concatenate([even, np.geomspace(1, max(steps, 1), records // 2)])
    marks = np.clip(np.round(marks), 0, steps)
    return np.unique(np.append(marks, [0, steps])).astype(np.int32)
