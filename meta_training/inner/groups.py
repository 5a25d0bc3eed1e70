"""Groups of tasks that are evaluated together, and how parts of a batch share them."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from meta_training.tasks.base import Task, grouped


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Tasks evaluated together.

    Attributes:
        tasks: The tasks, equal in `batch_key`.
        members: Their positions in the list that the batch was made from.
        first_problem: Number of the group's first problem.
        first_tensor: Number of the group's first tensor in the layout.
        replicas: Problems per task; problem `first_problem + r * len(tasks) + j` is
            replica r of task j.
    """

    tasks: tuple[Task, ...]
    members: tuple[int, ...]
    first_problem: int
    first_tensor: int
    replicas: int

    @property
    def task(self) -> Task:
        """The task whose `objective` is evaluated for all of them."""
        return self.tasks[0]

    @property
    def num_problems(self) -> int:
        """Problems of the group."""
        return len(self.tasks) * self.replicas

    @property
    def problems(self) -> slice:
        """The group's problems among all."""
        return slice(self.first_problem, self.first_problem + self.num_problems)

    def per_task(self, name) -> np.ndarray:
        """`[tasks]` float32 values of a field."""
        return np.array([getattr(task, name) for task in self.tasks], np.float32)


def deal_out(tasks, parts: int, objective_rows) -> np.ndarray:
    """`[tasks]`, the part of each, so that all parts cost about the same.

    Tasks of one `batch_key` stay together, to be compiled once, unless they would make
    a part too large.
    """
    if parts == 1:
        return np.zeros(len(tasks), int)

    def cost(task):
        rows = task.rows or 0
        if task.batch_size is not None:
            rows = task.batch_size + min(rows, objective_rows or rows)
        # Evaluating a row takes about ten operations per parameter, the update rule and
        # its gradient some thousands.
        return task.parameter_count * (1 + rows / 100)

    costs = np.array([cost(task) for task in tasks])
    pieces = []
    for unit in grouped(range(len(tasks)), lambda index: tasks[index].batch_key):
        share = costs[unit].sum() * parts / costs.sum()
        count = parts if share > 1 else 1
        pieces += [piece for piece in np.array_split(unit, count) if len(piece)]
    found = np.zeros(len(tasks), int)
    totals = np.zeros(parts)
    for piece in sorted(pieces, key=lambda piece: -costs[piece].sum()):
        part = int(totals.argmin())
        totals[part] += costs[piece].sum()
        found[piece] = part
    # Empty parts are dropped and the others renumbered.
    return np.unique(found, return_inverse=True)[1]


def replicate(instance, replicas):
    """A copy of the dict, its arrays repeated `replicas` times along the tasks."""
    return {
        name: tf.concat([array] * replicas, axis=0) for name, array in instance.items()
    }


def disturb(gradients, group: Group, noise, zeroing):
    """Adds the noise of each task to its gradients, then sets elements to zero."""
    if noise is not None:
        noise = noise * group.per_task("noise_stdev")[:, None]
        pieces = _by_tensor(noise, group)
        gradients = [a + b for a, b in zip(gradients, pieces, strict=True)]
    if zeroing is not None:
        probability = group.per_task("gradient_zero_probability")[:, None]
        pieces = _by_tensor(tf.cast(zeroing >= probability, tf.float32), group)
        gradients = [a * b for a, b in zip(gradients, pieces, strict=True)]
    return gradients


def _by_tensor(elements, group):
    """`[tasks, elements]` numbers as a `[problems, *shape]` tensor each."""
    shapes = group.task.parameter_shapes
    elements = tf.tile(elements, [group.replicas, 1])
    pieces = tf.split(elements, [math.prod(shape) for shape in shapes], axis=1)
    return [
        tf.reshape(piece, [-1, *shape])
        for piece, shape in zip(pieces, shapes, strict=True)
    ]


def objective_of(group, parameters, instance):
    """`[problems]` objectives of a group.

    Raises:
        ValueError: They cannot be computed, or are not a float32 number per problem.
    """
    task = group.task
    try:
        found = tf.convert_to_tensor(task.objective(parameters, instance))
    except TypeError as error:
        raise ValueError(
            f"The objective of a task must be computable. Received: {task.name}, whose "
            f"objective fails with: {error}"
        ) from error
    if found.dtype != tf.float32 or not found.shape.is_compatible_with(
        [group.num_problems]
    ):
        raise ValueError(
            "The objective of a task must be float32, a number for each problem, here "
            f"of shape ({group.num_problems},). Received: {found.dtype.name} of shape "
            f"{found.shape} from {task.name}"
        )
    return found
