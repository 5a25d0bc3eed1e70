"""Gradient descent and Adam, with learned rates and a few more learned numbers."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.meta_parameters import Specification, constant
from learned_optimizer.rule.update_rule import Step
from learned_optimizer.utils.flags import setting
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
    """

    initial_rate: float = setting(1e-3, "Before meta-training.", above=0)

    name: ClassVar[str] = "global_learning_rate"
    state_type: ClassVar[type] = NoState
    state_levels: ClassVar[Mapping[str, str]] = {}

    def specifications(self):
        start = constant(math.log(self.initial_rate))
        released_name = "LOL/global_log_learning_rate"
        return [Specification("log_learning_rate", released_name, (), start)]

    def compute_step(self, gradients, state, layout, meta_parameters, active=None):
        rate = tf.exp(self.log_learning_rates(state, layout, meta_parameters))
        return self.held(Step(rate * gradients, None, state), state, layout, active)

    def log_learning_rates(self, state, layout, meta_parameters):
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
    """

    num_steps: int = setting(1000, "How many rates there are.", at_least=1)

    name: ClassVar[str] = "learning_rate_schedule"
    state_type: ClassVar[type] = ScheduleState
    state_levels: ClassVar[Mapping[str, str]] = {"steps_taken": "tensor"}

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


# As released, in addition to the learned epsilon: inside the root, whose slope at 0 is
# unbounded, and outside it, so that a learned epsilon cannot vanish.
ROOT_EPSILON = 1e-10


class AdamState(NamedTuple):
    """Adam's moments.

    Attributes:
        first_moment: `[1, blocks, block_size]`, running mean of the gradient.
        second_moment: `[1, blocks, block_size]`, and of its square.
        steps_taken: `[1, tensors]`.
    """

    first_moment: Any
    second_moment: Any
    steps_taken: Any


@register_optimizer
@dataclasses.dataclass(frozen=True)
class TrainableAdam(TrainableOptimizer):
    r"""Adam (Kingma and Ba, 2014, algorithm 1) whose four numbers are learned.

    $m \leftarrow \beta_1 m + (1 - \beta_1) g$, $v \leftarrow \beta_2 v + (1 - \beta_2)
    g^2$, and the step is $\alpha \hat m / (\sqrt{\hat v + 10^{-10}} + \epsilon)$ with
    $\hat m = m / (1 - \beta_1^t)$, $\hat v = v / (1 - \beta_2^t)$. Learned are $\log
    \alpha$, the logits of both betas, and $\log(\epsilon - 10^{-10})$.

    Source: the released `trainable_adam.py`. There the second moment stays 0, since a
    mistake passes it to the bias correction and not to the update; here it moves.
    """

    learning_rate: float = setting(1e-3, "Before meta-training.", above=0)
    beta_1: float = setting(0.9, "Before meta-training.", above=0, below=1)
    beta_2: float = setting(0.999, "Before meta-training.", above=0, below=1)
    epsilon: float = setting(1e-8, "Before meta-training.", above=0)

    name: ClassVar[str] = "trainable_adam"
    state_type: ClassVar[type] = AdamState
    state_levels: ClassVar[Mapping[str, str]] = {
        "first_moment": "parameter",
        "second_moment": "parameter",
        "steps_taken": "tensor",
    }

    def specifications(self):
        logits = [math.log(b / (1 - b)) for b in (self.beta_1, self.beta_2)]
        starts = {
            ("log_learning_rate", "log_learning_rate"): math.log(self.learning_rate),
            ("beta_1_logit", "beta1_logit"): logits[0],
            ("beta_2_logit", "beta2_logit"): logits[1],
            ("log_epsilon", "log_epsilon"): math.log(self.epsilon),
        }
        return [
            Specification(name, f"LOL/{released_name}", (), constant(start))
            for (name, released_name), start in starts.items()
        ]

    def compute_step(self, gradients, state, layout, meta_parameters, active=None):
        def number(name):
            return self.number(name, meta_parameters, layout)

        steps_taken = state.steps_taken + 1.0
        steps = tf.gather(steps_taken[0], layout.block_tensor)[:, None]

        def average(old, new, logit):
            """The running mean, and its bias-corrected value."""
            mean = tf.sigmoid(logit) * old + tf.sigmoid(-logit) * new
            # 1 - beta^t, exact where beta is close to 1.
            correction = -tf.math.expm1(steps * tf.math.log_sigmoid(logit))
            return mean, mean / correction

        first, unbiased_first = average(
            state.first_moment, gradients, number("beta_1_logit")
        )
        second, unbiased_second = average(
            state.second_moment, tf.square(gradients), number("beta_2_logit")
        )
        epsilon = tf.exp(number("log_epsilon")) + ROOT_EPSILON
        rate = tf.exp(number("log_learning_rate"))
        root = tf.sqrt(unbiased_second + ROOT_EPSILON)
        step = rate * unbiased_first / (root + epsilon)
        new_state = AdamState(first, second, steps_taken)
        return self.held(Step(step[0], None, new_state), state, layout, active)

    def log_learning_rates(self, state, layout, meta_parameters):
        return self.number("log_learning_rate", meta_parameters, layout)

    def own_learning_rate(self, meta_parameters) -> float:
        return float(math.exp(meta_parameters["log_learning_rate"]))
