"""The configuration, input and result of a window of inner steps."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from learned_optimizer.utils.flags import check_settings, setting
from meta_training.inner.meta_objectives import (
    list_meta_objectives,
    meta_objective,
    step_weights,
)


@dataclasses.dataclass(frozen=True)
class UnrollConfig:
    """How a window is unrolled; `setting` documents each field.

    `clip_through_time` bounds each element of the gradient that flows from one inner
    step back to the one before, for a loss of weight 1: the mean over the window of one
    problem's values.
    """

    max_steps: int = setting(
        dataclasses.MISSING, "Most steps of a window, which have memory.", at_least=1
    )
    meta_objective: str = setting(
        "log", f"What is minimised: {', '.join(list_meta_objectives())}."
    )
    counting: str = setting(
        "released",
        "Which objectives count, see `meta_objectives.step_weights`.",
        choices=("released", "corrected"),
    )
    second_derivatives: bool = setting(
        True, "Whether the meta-gradient flows through the gradients of the tasks."
    )
    clip_through_time: float | None = setting(
        None,
        "Bound on what flows back between inner steps.",
        above=0,
        zero_is_none=True,
    )
    divergence_bound: float = setting(
        1e10,
        "A problem is cut off when its objective exceeds this times 1 + its first one.",
        above=0,
    )

    def __post_init__(self):
        check_settings(self)
        meta_objective(self.meta_objective)

    def num_objectives(self, num_steps):
        """Objectives recorded in a window of that many steps."""
        return num_steps + (self.counting == "corrected")

    @property
    def max_objectives(self) -> int:
        """Objectives recorded in the longest window."""
        return self.num_objectives(self.max_steps)

    def losses(self, objectives, alive, initial, num_steps) -> tf.Tensor:
        """`[problems]`: the weighted mean of the meta-objective's values in a window.

        From the step at which a problem is cut off, the value is that of an objective
        at the bound. `objectives` and `alive`, 0 where cut off, are `[max_objectives,
        problems]`; `initial` is `[problems]`, the first objective of each trajectory.
        """
        meta = meta_objective(self.meta_objective)
        count = self.num_objectives(num_steps)
        weights = step_weights(self.max_objectives, count, meta, self.counting)[:, None]
        counts = (alive > 0) & (weights > 0)
        # The inner `where` keeps what is cut off from sending NaN back.
        objectives = tf.where(counts, objectives, 1.0)
        if meta.needs_positive:
            objectives = tf.maximum(objectives, 0.0)
        initial = tf.where(tf.math.is_finite(initial), initial, 1.0)
        values = meta.function(objectives, initial)
        after_cut = meta.function(self.divergence_bound, tf.ones([]))
        values = tf.where(counts, values, after_cut)
        return tf.reduce_sum(weights * values, axis=0)


class InnerState(NamedTuple):
    """The state of all problems between two inner steps.

    Attributes:
        values: `[blocks, block_size]` parameters.
        attended_values: Where the next gradient is taken; of size 0 without
            attention.
        state: The state of the optimizer, its `state_type`.
    """

    values: Any
    attended_values: Any
    state: Any


class Carry(NamedTuple):
    """The input of a window, besides the meta-parameters.

    Attributes:
        inner: The inner state after the last window. Fresh problems have new `values`
            and `log_learning_rate` in it; the rest of their state is not read.
        fresh: `[problems]` float32, 1 where a trajectory starts with this window.
        alive: `[problems]` float32, 0 where the problem has been cut off.
        initial_objective: `[problems]`, first objective of the trajectory (not
            read where fresh).
        inverse_scale: `[blocks, 1]`, see `ProblemBatch.evaluate`.
        weights: `[problems]`, summing to 1: the loss is the weighted sum over
            problems.
        instances: The stacked instances of the tasks of each group.
    """

    inner: InnerState
    fresh: Any
    alive: Any
    initial_objective: Any
    inverse_scale: Any
    weights: Any
    instances: Any


class Window(NamedTuple):
    """The result of a window.

    Attributes:
        inner: The inner state after it.
        alive: `[problems]`, 0 where cut off.
        initial_objective: `[problems]`.
        objectives: `[max_objectives, problems]`, before each step; zeros beyond the
            window's length.
        losses: `[problems]`, the meta-objective of each.
        mean_log_learning_rate: `[problems]`, after the window.
    """

    inner: InnerState
    alive: Any
    initial_objective: Any
    objectives: Any
    losses: Any
    mean_log_learning_rate: Any
