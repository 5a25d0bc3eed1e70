"""Tasks made from tasks: rescaled, logarithmic, sparse gradients, sums.

The released wrappers ignore the gradient noise (and the zeroing) of what they wrap
and use their own, none by default; so do these. It follows that the released
`sum_problems_noisy` has no noise.
"""

import dataclasses
from collections import defaultdict

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.arrays import under_prefix, with_prefix
from learned_optimizer.utils.flags import setting
from meta_training.tasks.base import Task, broadcast_tasks
from meta_training.tasks.released.algebraic import AlgebraicTask, log_objective_value


def rescale(task: Task, scale: float = 10.0, noise_stdev: float = 0.0) -> Task:
    """The task with parameters `scale` times as large (`Rescale`): f(x / scale)."""
    if isinstance(task, AlgebraicTask):
        return dataclasses.replace(
            task,
            parameter_scale=scale * task.parameter_scale,
            noise_stdev=noise_stdev,
            gradient_zero_probability=0.0,
        )
    return Rescaled(task, scale, noise_stdev=noise_stdev)


def log_objective(task: Task) -> Task:
    """The task with objective log(f + 1e-6) - log(1e-6) (`LogObjective`)."""
    if not task.positive:
        raise ValueError(
            f"log_objective must have a nonnegative objective. Received: {task.name}"
        )
    if isinstance(task, AlgebraicTask) and not task.logarithm:
        return dataclasses.replace(
            task, logarithm=True, noise_stdev=0.0, gradient_zero_probability=0.0
        )
    return Logarithmic(task)


def sparse_gradient(
    task: Task, zero_probability: float = 0.99, noise_stdev: float = 0.0
) -> Task:
    """The task with gradient elements zeroed at random (`SparseProblem`).

    The trainer zeroes each element with `zero_probability` at every step, after it
    has added the noise: a zeroed element has none.
    """
    return dataclasses.replace(
        task, gradient_zero_probability=zero_probability, noise_stdev=noise_stdev
    )


@dataclasses.dataclass(frozen=True)
class _Wrapper(Task):
    """A task around another, with its data, rows and minibatches."""

    task: Task

    rows = property(lambda self: self.task.rows)
    row_arrays = property(lambda self: self.task.row_arrays)
    positive = property(lambda self: self.task.positive)
    components = property(lambda self: (self.task,))
    parameter_shapes = property(lambda self: self.task.parameter_shapes)

    def __post_init__(self):
        object.__setattr__(self, "batch_size", self.task.batch_size)
        super().__post_init__()

    @property
    def batch_key(self):
        return (type(self), self.task.batch_key)

    @property
    def name(self):
        return f"{self.family}_{self.task.name}{self._drawn_at_each_step()}"

    def sample_instance(self, generator):
        return self.task.sample_instance(generator)

    def sample_parameters(self, generator):
        return self.task.sample_parameters(generator)


@dataclasses.dataclass(frozen=True)
class Rescaled(_Wrapper):
    """f(x / scale) of any task, started `scale` times as far out; see `rescale`."""

    scale: float = setting(10.0, "Of all parameters.", above=0)

    @property
    def name(self):
        return f"{super().name}_scale{self.scale:g}"

    def sample_instance(self, generator):
        instance = super().sample_instance(generator)
        return {**with_prefix("inner/", instance), "scale": np.float32(self.scale)}

    @property
    def row_arrays(self):
        return tuple(f"inner/{name}" for name in self.task.row_arrays)

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        return [tensor * np.float32(self.scale) for tensor in start]

    def objective(self, parameters, instance):
        scale = instance["scale"]
        parameters = [x / broadcast_tasks(scale, x) for x in parameters]
        return self.task.objective(parameters, under_prefix("inner/", instance))


@dataclasses.dataclass(frozen=True)
class Logarithmic(_Wrapper):
    """log(f + 1e-6) - log(1e-6) of any nonnegative task; see `log_objective`."""

    def objective(self, parameters, instance):
        return log_objective_value(self.task.objective(parameters, instance))


@dataclasses.dataclass(frozen=True)
class SumTask(Task):
    """The sum of independent problems, each with separate parameters (`SumTask`).

    Components of equal `batch_key` are evaluated in one batched computation.

    Attributes:
        tasks: the summed tasks; none may draw minibatches.
    """

    tasks: tuple[Task, ...]

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks:
            raise ValueError("tasks must have one member or more. Received: none")
        for task in self.tasks:
            if task.batch_size is not None:
                raise ValueError(
                    "the tasks of a sum must not draw minibatches. "
                    f"Received: {task.name}"
                )

    @property
    def positive(self):
        return all(task.positive for task in self.tasks)

    @property
    def components(self):
        return self.tasks

    @property
    def family(self):
        return "sum"

    @property
    def name(self):
        names = "+".join(task.name for task in self.tasks)
        return f"sum_{names}{self._drawn_at_each_step()}"

    @property
    def parameter_shapes(self):
        return sum((task.parameter_shapes for task in self.tasks), ())

    @property
    def batch_key(self):
        return (SumTask, *(task.batch_key for task in self.tasks))

    def sample_instance(self, generator):
        return {
            f"{index}/{name}": array
            for index, task in enumerate(self.tasks)
            for name, array in task.sample_instance(generator).items()
        }

    def sample_parameters(self, generator):
        return sum((task.sample_parameters(generator) for task in self.tasks), [])

    def objective(self, parameters, instance):
        groups, start = defaultdict(list), 0
        for index, task in enumerate(self.tasks):
            end = start + len(task.parameter_shapes)
            part = under_prefix(f"{index}/", instance)
            groups[task.batch_key].append((task, parameters[start:end], part))
            start = end
        total = 0.0
        for members in groups.values():
            tasks, starts, parts = zip(*members, strict=True)
            values = tasks[0].objective(
                [tf.concat(tensors, axis=0) for tensors in zip(*starts, strict=True)],
                {k: tf.concat([part[k] for part in parts], axis=0) for k in parts[0]},
            )
            total += tf.reduce_sum(tf.reshape(values, [len(members), -1]), axis=0)
        return total
