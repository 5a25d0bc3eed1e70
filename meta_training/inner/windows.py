"""What a window of inner steps starts from, how it is run, and what it leads to."""

import dataclasses
import math
from typing import Any, NamedTuple

from meta_training.outer.meta_objectives import meta_objective


@dataclasses.dataclass(frozen=True)
class UnrollOptions:
    """How a window is unrolled.

    Attributes:
        max_steps: Most steps a window can have; memory is reserved for so many.
        meta_objective: Name of the meta-objective.
        counting: `released` or `corrected`, see `meta_objectives.step_weights`.
        second_derivatives: Whether the meta-gradient flows through the gradients
            that the optimizer gets.
        clip_through_time: Bound on each element of the gradient that flows from one
            inner step back to the one before, for a loss of weight 1: the mean over
            the window of one problem's values. None: no bound. (Design, section 5,
            gives it for the mean over 62 problems as well, 0.002: here 0.12.)
        divergence_bound: A problem is cut off when its objective exceeds so many
            times 1 + its first one.
    """

    max_steps: int
    meta_objective: str = "log"
    counting: str = "released"
    second_derivatives: bool = True
    clip_through_time: float | None = None
    divergence_bound: float = 1e10

    def __post_init__(self):
        meta_objective(self.meta_objective)
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be positive, received {self.max_steps}")
        if self.counting not in ("released", "corrected"):
            raise ValueError(
                f"counting must be released or corrected, received {self.counting!r}"
            )
        bound = self.clip_through_time
        if bound is not None and not 0 < bound < math.inf:
            raise ValueError(
                f"clip_through_time must be positive or None, received {bound}"
            )
        if not 0 < self.divergence_bound < math.inf:
            raise ValueError(
                "divergence_bound must be positive and finite, "
                f"received {self.divergence_bound}"
            )

    @property
    def max_objectives(self) -> int:
        """Objectives recorded in the longest window."""
        return self.max_steps + (self.counting == "corrected")


class InnerState(NamedTuple):
    """Where all problems stand between two inner steps.

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
    """Everything a window starts from, besides the meta-parameters.

    Attributes:
        inner: The inner state that the last window left; fresh problems have new
            `values` and `log_learning_rate` in it, and nothing else of theirs counts.
        fresh: `[problems]` float32, 1 where a trajectory starts with this window.
        alive: `[problems]` float32, 0 where the problem has been cut off.
        initial_objective: `[problems]`, first objective of the trajectory (not
            read where fresh).
        inverse_scale: `[blocks, 1]`, see `ProblemBatch.evaluate`.
        weights: `[problems]`, summing to 1: the loss is the weighted sum over
            problems.
        instances: Of each group, the stacked instances of its tasks.
    """

    inner: InnerState
    fresh: Any
    alive: Any
    initial_objective: Any
    inverse_scale: Any
    weights: Any
    instances: Any


class Window(NamedTuple):
    """What a window led to.

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
