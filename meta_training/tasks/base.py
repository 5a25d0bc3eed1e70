"""What a meta-training task is, and the register of named sets of them.

A `Task` is a static, hashable description of one optimization problem: shapes,
noise, where its data come from. It holds no tensors. From it the trainer draws

- an *instance*: the arrays that make one concrete problem (a matrix, a data set),
- a *start*: the parameters from which that problem is optimized,

and it evaluates the objective of many instances in one batched computation: every
array handed to `Task.objective` has a leading axis of tasks. Two tasks can share
that computation when their `Task.batch_key` is equal, so a key holds what shapes
the computation, and mere numbers (a condition number, a norm power, an activation)
travel in the instance instead. Fewer keys, fewer computations for XLA to compile.

A task of your own is one short class: see `docs/meta_training.md`.
"""

import abc
import dataclasses
import math
import re
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import ClassVar, TypeVar

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import check_settings, setting
from meta_training.registry import Registry

T = TypeVar("T")
Instance = dict[str, np.ndarray]
Shapes = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """The description of one optimization problem; subclasses are dataclasses.

    Fields declared `int`, or as tuples of such, are sizes and must be positive, unless
    they are among the `numbers`. Lists become tuples, so that a task can be hashed.

    A classifier also has `accuracy(parameters, instance, averages=None)`, `[tasks]`.

    Fields made by `setting` are checked, too.

    Attributes:
        rows: rows of data in an instance; None where there are none.
        row_arrays: names of the instance arrays that have one entry a row.
        numbers: names of the fields that change no shape and no operation, and so
            stay out of `batch_key`. Their values travel in instance arrays.
        positive: whether the objective is never negative (up to rounding), as the
            log meta-objective wants.
    """

    _: dataclasses.KW_ONLY
    noise_stdev: float = setting(
        0.0, "Of the Gaussian noise that the trainer adds to gradients.", at_least=0
    )
    batch_size: int | None = setting(
        None, "Rows of data drawn at every inner step; None: all.", at_least=1
    )
    gradient_zero_probability: float = setting(
        0.0,
        "Chance that an element of the gradient is set to 0, drawn anew for each "
        "element and step, after the noise (`SparseProblem` of the released code).",
        at_least=0,
        at_most=1,
    )

    # Without annotation: as a ClassVar it would fix the place of a subclass's field.
    rows = None
    # How many of the first rows a recorded loss is of; None: all.
    recorded_rows = None
    row_arrays: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[bool] = True

    def __post_init__(self):
        check_settings(self)
        for field in dataclasses.fields(self):
            value = _as_tuples(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            is_size = field.name not in self.numbers and _is_size(field.type)
            if is_size and not _are_sizes(value):
                raise ValueError(
                    f"{field.name} must be positive integers. Received: {value!r}"
                )
        if self.batch_size is not None and self.batch_size > (self.rows or 0):
            raise ValueError(
                "batch_size must not exceed the rows of data that the objective draws "
                f"({self.rows or 'none'}). Received: {self.batch_size!r}"
            )

    @property
    @abc.abstractmethod
    def parameter_shapes(self) -> Shapes:
        """The shape of every parameter tensor, without the axis of tasks."""

    def sample_instance(self, generator: np.random.Generator) -> Instance:
        """Draws the float32 and int32 arrays that make one instance; may be empty."""
        return {}

    def sample_parameters(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Draws a starting point, float32; N(0, 1) unless a family says otherwise."""
        return [
            generator.standard_normal(shape, dtype=np.float32)
            for shape in self.parameter_shapes
        ]

    @abc.abstractmethod
    def objective(
        self, parameters: Sequence[tf.Tensor], instance: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """The objective of a stack of instances.

        Args:
            parameters: one `[tasks, *shape]` tensor for each of `parameter_shapes`.
            instance: the arrays of `sample_instance`, each `[tasks, *shape]`; those
                of `row_arrays` may be minibatches, with any number of rows.

        Returns:
            `[tasks]` float32. Compiles with XLA and can be differentiated twice.
        """

    @property
    def statistics_shapes(self) -> Shapes:
        """Shapes of the running averages of batch normalisation, in order.

        A mean and a variance for each such layer. They start at 0 and 1, training
        carries them beside the parameters, and no optimizer sees them.
        """
        return ()

    def objective_and_statistics(self, parameters, instance, averages=None):
        """The objective, and the statistics that batch normalisation found in the rows.

        `averages`, `[tasks, *shape]` for each of `statistics_shapes`, are what to
        normalise by; None: the statistics of the rows, which are tensors like them.
        """
        return self.objective(parameters, instance), []

    def minibatch(
        self, instance: Mapping[str, tf.Tensor], row_indices: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The instance cut down to the rows `row_indices`, `[tasks, batch]` int32."""
        return {
            name: tf.gather(array, row_indices, batch_dims=1)
            if name in self.row_arrays
            else array
            for name, array in instance.items()
        }

    @property
    def batch_key(self) -> Hashable:
        """Tasks with equal keys can be stacked and evaluated in one computation."""
        outside = {"noise_stdev", "gradient_zero_probability", *self.numbers}
        structure = tuple(
            (field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in outside
        )
        return (type(self), *structure)

    @property
    def program_key(self) -> Hashable:
        """Tasks with equal keys can train in one program, what each step draws too."""
        draws = (self.noise_stdev > 0, self.gradient_zero_probability > 0)
        return (self.batch_key, draws)

    @property
    def components(self) -> tuple["Task", ...]:
        """The tasks this one is built from; empty for a plain task."""
        return ()

    @property
    def family(self) -> str:
        """The kind of problem, for grouping curves: the class name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def name(self) -> str:
        """A readable name made from the fields that differ from their defaults."""
        shared = {field.name for field in dataclasses.fields(Task)}
        parts = [self.family]
        for field in sorted(dataclasses.fields(self), key=lambda field: field.kw_only):
            value = getattr(self, field.name)
            if field.name in shared or value == field.default:
                continue
            is_labelled = field.kw_only and not isinstance(value, str)
            label = field.name if is_labelled else ""
            parts.append(label if value is True else label + _readable(value))
        return "_".join(parts) + self._drawn_at_each_step()

    def _drawn_at_each_step(self) -> str:
        """The end of a name: what the trainer draws at every inner step."""
        parts = {
            "batch": self.batch_size or 0,
            "noise": self.noise_stdev,
            "sparse": self.gradient_zero_probability,
        }
        return "".join(f"_{key}{value:g}" for key, value in parts.items() if value)

    @property
    def parameter_count(self) -> int:
        """How many numbers are optimized."""
        return sum(math.prod(shape) for shape in self.parameter_shapes)


_task_sets: Registry[Callable[[], list[Task]]] = Registry("a task set")


# A set is a function that returns a list of tasks.
register_task_set = _task_sets.register
list_task_sets = _task_sets.names


def task_set(name: str) -> list[Task]:
    """The tasks of a named set, in a fixed order.

    Raises:
        ValueError: No set has that name; the message lists those that exist.
    """
    return list(_task_sets.get(name)())


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Lists of the items of equal key, in the order of the first of each."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def stack_instances(instances: Sequence[Instance]) -> Instance:
    """Stacks instances of equal `batch_key` along a new leading axis of tasks."""
    return {
        name: np.stack([instance[name] for instance in instances])
        for name in instances[0]
    }


def stack_parameters(starts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Stacks parameter lists of equal shapes along a new leading axis of tasks."""
    return [np.stack(tensors) for tensors in zip(*starts, strict=True)]


def broadcast_tasks(vector: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes a `[tasks]` vector so that it multiplies `like`, `[tasks, ...]`."""
    return tf.reshape(vector, [-1] + [1] * (len(like.shape) - 1))


def _as_tuples(value):
    """The value, its lists as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _is_size(kind) -> bool:
    """Whether a type is int or a tuple of such types."""
    is_tuple = typing.get_origin(kind) is tuple
    return kind in (int, ...) or is_tuple and all(map(_is_size, typing.get_args(kind)))


def _are_sizes(value) -> bool:
    """Whether it is a positive int, or a tuple of such, nested or not."""
    if isinstance(value, tuple):
        return all(map(_are_sizes, value))
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_integer and value > 0


def _readable(value) -> str:
    if isinstance(value, tuple):
        return "x".join(_readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
