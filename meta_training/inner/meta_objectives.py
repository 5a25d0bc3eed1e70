"""Meta-objectives: how the objectives of a window enter the meta-training loss.

A new one is a function of the objectives and the first objective of the trajectory, and
a line that registers it (`docs/meta_training.md`).
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from meta_training.registry import Registry
from meta_training.tasks.base import Task

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class MetaObjective:
    """How one objective counts.

    Attributes:
        name: Its name.
        function: `(objectives, initial_objective) -> values`, elementwise; the
            loss is a weighted mean of the values over the steps.
        needs_positive: Whether objectives must not be negative.
        needs_positive_start: Whether the first one must not be: what it divides would
            change its sign.
        counts_first_twice: Whether the released code counts the first objective of
            a window twice.
    """

    name: str
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    needs_positive: bool = False
    counts_first_twice: bool = False
    needs_positive_start: bool = False

    def check_tasks(self, tasks: Iterable[Task]) -> None:
        """Raises ValueError where an objective may be negative and must not be."""
        negative = sorted({task.name for task in tasks if not task.positive})
        if self.needs_positive and negative:
            raise ValueError(
                f"The objectives of tasks must be 0 or more for the meta-objective "
                f"{self.name}. Received: tasks that may be negative, "
                f"{', '.join(negative)}"
            )

    def check_start(self, task: Task, objective: float) -> None:
        """Raises ValueError where a trajectory's first objective is of no use."""
        if not np.isfinite(objective):
            raise ValueError(
                "The objective of a task must be finite at its start. Received: "
                f"{objective} of {task.name}"
            )
        if (self.needs_positive or self.needs_positive_start) and objective < 0:
            raise ValueError(
                "The objective of a task must be 0 or more at its start for the "
                f"meta-objective {self.name}. Received: {objective} of {task.name}"
            )


_meta_objectives: Registry[MetaObjective] = Registry("a meta-objective")


def register_meta_objective(name: str, **fields: bool):
    """A decorator that adds a `MetaObjective` with these fields under a new name."""

    def register(function):
        _meta_objectives.register(name)(MetaObjective(name, function, **fields))
        return function

    return register


meta_objective = _meta_objectives.get
list_meta_objectives = _meta_objectives.names


@register_meta_objective("log", needs_positive=True, counts_first_twice=True)
def log(objectives, initial_objective):
    """The logarithm of f / (f0 + 1e-6) + 1e-6, the released default."""
    return tf.math.log(objectives / (initial_objective + EPSILON) + EPSILON)


@register_meta_objective(
    "log_numerator_epsilon", needs_positive=True, counts_first_twice=True
)
def log_numerator_epsilon(objectives, initial_objective):
    """log((f + 1e-6) / (f0 + 1e-6)), released as `use_numerator_epsilon`."""
    return tf.math.log((objectives + EPSILON) / (initial_objective + EPSILON))


@register_meta_objective("linear", needs_positive_start=True)
def linear(objectives, initial_objective):
    """F / (f0 + 1e-6), released without `use_log_objective`."""
    return objectives / (initial_objective + EPSILON)


@register_meta_objective("relative")
def relative(objectives, initial_objective):
    """(F - f0) / (|f0| + 1e-6): of any sign, ours."""
    return (objectives - initial_objective) / (tf.abs(initial_objective) + EPSILON)


def step_weights(
    max_steps: int, num_steps: tf.Tensor, meta: MetaObjective, counting: str
) -> tf.Tensor:
    """`[max_steps]` weights of the objectives f(x_0), f(x_1), ... of a window.

    With `released` counting the window has N objectives f(x_0) .. f(x_(N-1)), one
    before each of N updates. The first counts twice where the released code has it so,
    and the result of the last update never counts. With `corrected` counting f(x_0)
    does not count, since no update of this window contributes to it; all later
    objectives do, including f(x_N).

    `num_steps`, a scalar int32, is the number of objectives: N, or N + 1 if corrected.
    """
    steps = tf.range(max_steps)
    weights = tf.cast(steps < num_steps, tf.float32)
    first = tf.cast(steps == 0, tf.float32)
    if counting == "corrected":
        weights = weights - first
    elif meta.counts_first_twice:
        weights = weights + first
    return weights / tf.reduce_sum(weights)
