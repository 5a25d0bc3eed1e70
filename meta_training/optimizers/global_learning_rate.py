"""Gradient descent with one learned learning rate."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

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
