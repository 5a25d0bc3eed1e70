"""Norms of a random linear system (problem_generator.py, `Norm`)."""

import dataclasses

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.released.algebraic import AlgebraicTask
from meta_training.tasks.released.quadratics import gaussian_system

NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Norm(AlgebraicTask):
    """f(x) = (sum (|W x - y| + 1e-6)^p)^(1/p), W and y from N(0, 1).

    W is `[n, n]`, x and y are `[n, 1]`, n the dimension.
    """

    dimension: int
    power: float = setting(2.0, "p; below 1 gradients are unbounded.", at_least=1)

    numbers = (*AlgebraicTask.numbers, "power")

    @property
    def parameter_shapes(self):
        return ((self.dimension, 1),)

    def sample_problem(self, generator):
        system = gaussian_system(self.dimension, generator)
        return {**system, "power": np.float32(self.power)}

    def plain_objective(self, parameters, instance):
        residual = tf.matmul(instance["w"], parameters[0]) - instance["y"]
        magnitude = tf.abs(tf.squeeze(residual, axis=-1)) + NORM_EPSILON
        power = instance["power"]
        total = tf.reduce_sum(tf.pow(magnitude, power[:, tf.newaxis]), axis=-1)
        return tf.pow(total, 1.0 / power)
