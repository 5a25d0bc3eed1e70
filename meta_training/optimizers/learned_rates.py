"""Gradient descent with a learned learning rate, or with one for each step."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.meta_parameters import Specification, constant
from learned_optimizer.rule.update_rule import Step
from meta_training.optimizers.base import TrainableOptimizer, register_optimizer


class NoState(NamedTuple):
    """The empty state."""


@register_optimizer
@dataclasses.dataclass(frozen=True)
class GlobalLearningRate(TrainableOptimizer):
    """`value - exp(log_learning_rate) * gradient`, one rate for everything.

    The released code (`global_learning_rate.py`) learns the rate, starting at 1e-3.
    Here its logarithm is learned: the rate stays positive, and a step of the
    meta-optimizer changes it by a relative amount.

    Attributes:
        initial_rate: The learning rate before meta-training. Defaults to 1e-3.

    Raises:
        ValueError: If it is not positive.
    """

    initial_rate: float = 1e-3

    name: ClassVar[str] = "global_learning_rate"
    state_type: ClassVar[type] = NoState
    state_levels: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self):
        if not (
            isinstance(self.initial_rate, (int, float))
            and 0 < self.initial_rate < math.inf
        ):
            raise ValueError(
                "initial_rate must be a positive number. "
                f"Received: {self.initial_rate!r}"
            )

    def specifications(self):
        start = constant(math.log(self.initial_rate))
        released_name = "LOL/global_log_learning_rate"
        return [Specification("log_learning_rate", released_name, (), start)]

    def compute_step(self, gradients, state, layout, meta_parameters, active=None):
        rate = tf.exp(self.log_learning_rates(state, layout, meta_parameters))
        return self.held(Step(rate * gradients, None, state), state, layout, active)

    def log_learning_rates(self, state, layout, meta_parameters):
        del state
        return self.number("log_learning_rate", meta_parameters, layout)

    def own_learning_rate(self, meta_parameters) -> float:
        return float(math.exp(meta_parameters["log_learning_rate"]))


class ScheduleState(NamedTuple):
    """`[1, tensors]`, the position in the schedule."""

    steps_taken: Any


@register_optimizer
@dataclasses.dataclass(frozen=True)
class LearningRateSchedule(GlobalLearningRate):
    """`value - exp(log_learning_rates[t]) * gradient` at step t; then the last rate.

    The released code (`learning_rate_schedule.py`) learns 1,000 rates, starting at 0.
    Here their logarithms are learned, for the reasons given in `GlobalLearningRate`; 0
    has no logarithm, so they start at the initial global rate.

    Attributes:
        num_steps: How many rates there are. Defaults to 1,000.

    Raises:
        ValueError: If the rate or the number is not positive.
    """

    num_steps: int = 1000

    name: ClassVar[str] = "learning_rate_schedule"
    state_type: ClassVar[type] = ScheduleState
    state_levels: ClassVar[Mapping[str, str]] = {"steps_taken": "tensor"}

    def __post_init__(self):
        super().__post_init__()
        if not (isinstance(self.num_steps, int) and self.num_steps > 0):
            raise ValueError(
                f"num_steps must be a positive integer. Received: {self.num_steps!r}"
            )

    def specifications(self):
        name, start = "log_learning_rates", constant(math.log(self.initial_rate))
        return [Specification(name, f"LOL/{name}", (self.num_steps,), start)]

    def compute_step(self, gradients, state, layout, meta_parameters, active=None):
        rates = tf.exp(self.log_learning_rates(state, layout, meta_parameters))
        step = Step(rates * gradients, None, ScheduleState(state.steps_taken + 1.0))
        return self.held(step, state, layout, active)

    def log_learning_rates(self, state, layout, meta_parameters):
        levels = self.levels(meta_parameters, layout)
        rates = levels.get("log_learning_rates", "tensor")
        index = tf.minimum(tf.cast(state.steps_taken[0], tf.int32), self.num_steps - 1)
        of_tensors = tf.gather(rates, index, batch_dims=int(levels.per_problem))
        return tf.gather(of_tensors, layout.block_tensor)[:, None]

    def own_learning_rate(self, meta_parameters) -> float:
        """The geometric mean of all rates."""
        return float(np.exp(np.mean(meta_parameters["log_learning_rates"])))
