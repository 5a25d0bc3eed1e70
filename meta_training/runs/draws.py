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

    @property
    def noise_stdev(self) -> np.ndarray:
        """`[draws]`, of the gradient noise."""
        return np.array([task.noise_stdev for task in self.tasks], np.float32)

    @property
    def gradient_zero_probability(self) -> np.ndarray:
        """`[draws]`, the chance that an element of the gradient is set to 0."""
        values = [task.gradient_zero_probability for task in self.tasks]
        return np.array(values, np.float32)


def draw_runs(tasks: Sequence[Task], seeds: Sequence[int], steps: int) -> Draws:
    """Draws every task with every seed.

    A draw depends on the task's name, the seed and the number of steps alone, not on
    what is drawn beside it.

    Args:
        tasks: of one `batch_key`.
        seeds: of the draws; each task is drawn once with each.
        steps: how many minibatches there must be.

    Raises:
        ValueError: the tasks cannot share a computation.
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
    """When losses are recorded: steps in ascending order, from 0 to `steps`.

    Args:
        steps: of the run.
        records: at most this number; half evenly spaced, half evenly in the logarithm,
            so that a curve can be drawn on either axis.
        every: the number of steps between records, instead.

    Returns:
        `[records]` int32.
    """
    if every is not None:
        marks = np.arange(0, steps, every)
    else:
        even = np.linspace(0, steps, max(2, records // 2))
        marks = np.concatenate([even, np.geomspace(1, max(steps, 1), records // 2)])
    marks = np.clip(np.round(marks), 0, steps)
    return np.unique(np.append(marks, [0, steps])).astype(np.int32)
