"""Adam with a learned learning rate, learned decays and a learned epsilon."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from learned_optimizer.rule.meta_parameters import Specification, constant
from learned_optimizer.rule.update_rule import Step
from meta_training.optimizers.base import TrainableOptimizer, register_optimizer

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

    Attributes:
        learning_rate: Before meta-training. Defaults to 1e-3.
        beta_1: Before meta-training. Defaults to 0.9.
        beta_2: Before meta-training. Defaults to 0.999.
        epsilon: Before meta-training. Defaults to 1e-8.

    Raises:
        ValueError: If a rate is not positive or a beta is not between 0 and 1.
    """

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    name: ClassVar[str] = "trainable_adam"
    state_type: ClassVar[type] = AdamState
    state_levels: ClassVar[Mapping[str, str]] = {
        "first_moment": "parameter",
        "second_moment": "parameter",
        "steps_taken": "tensor",
    }

    def __post_init__(self):
        if not (0 < self.learning_rate < math.inf and 0 < self.epsilon < math.inf):
            raise ValueError(
                "learning_rate and epsilon must be positive. "
                f"Received: {self.learning_rate!r} and {self.epsilon!r}"
            )
        if not (0 < self.beta_1 < 1 and 0 < self.beta_2 < 1):
            raise ValueError(
                "beta_1 and beta_2 must be between 0 and 1, neither included. "
                f"Received: {self.beta_1!r} and {self.beta_2!r}"
            )

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
        del state
        return self.number("log_learning_rate", meta_parameters, layout)

    def own_learning_rate(self, meta_parameters) -> float:
        return float(math.exp(meta_parameters["log_learning_rate"]))
