"""Closed-form problems whose rescaled and logarithmic variants share a computation.

`Rescale` and `LogObjective` of the released code wrap quadratics, bowls and norms.
Both are kept here as two numbers of the instance, so that a quadratic, its rescaled
and its logarithmic variant have one `batch_key`.
"""

import abc
import dataclasses
import math

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.base import Task, broadcast_tasks

LOG_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class AlgebraicTask(Task):
    """A closed-form objective f, with f(x / scale) and its logarithm built in.

    The start is multiplied by `parameter_scale`, and the objective divides by it.
    """

    _: dataclasses.KW_ONLY
    parameter_scale: float = setting(1.0, "Of all parameters.", above=0)
    logarithm: bool = setting(False, "Whether it is log(f + 1e-6) - log(1e-6).")

    numbers = ("parameter_scale", "logarithm")

    @abc.abstractmethod
    def sample_problem(self, generator: np.random.Generator):
        """Draws the arrays of the plain objective."""

    @abc.abstractmethod
    def plain_objective(self, parameters, instance):
        """The `[tasks]` objective before rescaling and logarithm."""

    def sample_instance(self, generator):
        return {
            **self.sample_problem(generator),
            "parameter_scale": np.float32(self.parameter_scale),
            "logarithm": np.float32(self.logarithm),
        }

    def sample_parameters(self, generator):
        scale = np.float32(self.parameter_scale)
        return [tensor * scale for tensor in super().sample_parameters(generator)]

    def objective(self, parameters, instance):
        scale = instance["parameter_scale"]
        value = self.plain_objective(
            [tensor / broadcast_tasks(scale, tensor) for tensor in parameters], instance
        )
        is_logarithmic = instance["logarithm"] > 0
        # The inner `where` keeps a branch that is not taken from sending NaN back.
        logarithmic = log_objective_value(tf.where(is_logarithmic, value, 1.0))
        return tf.where(is_logarithmic, logarithmic, value)


def log_objective_value(value: tf.Tensor) -> tf.Tensor:
    """log(f + 1e-6) - log(1e-6), `LogObjective` of the released code; 0 at f = 0."""
    return tf.math.log(value + LOG_EPSILON) - math.log(LOG_EPSILON)
