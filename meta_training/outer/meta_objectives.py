"""Meta-objectives: what a sequence of objectives is worth to the optimizer's training.

A meta-objective of your own is a function of the objectives and the first objective
of the trajectory, and a line to register it:

>>> import tensorflow as tf
>>> from meta_training.outer.meta_objectives import meta_objective
>>> from meta_training.outer.meta_objectives import register_meta_objective
>>> @register_meta_objective("square_root")
... def square_root(objectives, initial_objective):
...     return tf.sqrt(objectives / (initial_objective + 1e-6))
>>> value = meta_objective("square_root").function(tf.constant(4.0), tf.constant(1.0))
>>> round(float(value), 3)
2.0
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from meta_training.registry import Registry

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


_meta_objectives: Registry[MetaObjective] = Registry("a meta-objective")


def register_meta_objective(
    name: str,
    needs_positive: bool = False,
    counts_first_twice: bool = False,
    needs_positive_start: bool = False,
):
    """A decorator that adds a meta-objective, see `MetaObjective`.

    Raises:
        ValueError: The name is taken.
    """

    def register(function):
        _meta_objectives.add(
            name,
            MetaObjective(
                name, function, needs_positive, counts_first_twice, needs_positive_start
            ),
        )
        return function

    return register


def meta_objective(name: str) -> MetaObjective:
    """The meta-objective of that name.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    return _meta_objectives[name]


def list_meta_objectives() -> list[str]:
    """The names of all meta-objectives, sorted."""
    return _meta_objectives.names()


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

    With `released` counting the window has N objectives f(x_0) .. f(x_(N-1)): those
    before each of N updates; the first counts twice where the released code has it
    so, and what the last update led to never counts. With `corrected` counting
    f(x_0) does not count, since no update of this window has a part in it, and all
    later ones do, f(x_N) among them.

    Args:
        max_steps: Length of the result.
        num_steps: Scalar int32, objectives in the window: N, or N + 1 if corrected.
        meta: The meta-objective.
        counting: `released` or `corrected`.
    """
    steps = tf.range(max_steps)
    weights = tf.cast(steps < num_steps, tf.float32)
    first = tf.cast(steps == 0, tf.float32)
    if counting == "corrected":
        weights = weights - first
    elif meta.counts_first_twice:
        weights = weights + first
    return weights / tf.reduce_sum(weights)
