"""Closed-form problems: quadratics, bowls and norms (problem_generator.py).

`Rescale` and `LogObjective` of the released code wrap them. Both are kept here as two
numbers of the instance, so that a quadratic, its rescaled and its logarithmic variant
have one `batch_key`.
"""

import abc
import dataclasses
import math

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.base import Task, broadcast_tasks
from meta_training.tasks.numerics import matrix_vector_product

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


@dataclasses.dataclass(frozen=True)
class Quadratic(AlgebraicTask):
    """f(x) = 1/2 ||W x - y||^2 with W `[n, n]` and y `[n, 1]` from N(0, 1).

    W is not symmetrised or scaled: the condition number of its Gram matrix grows
    with n^2, which is what makes large ones hard.
    """

    dimension: int

    @property
    def parameter_shapes(self):
        return ((self.dimension, 1),)

    def sample_problem(self, generator):
        return gaussian_system(self.dimension, generator)

    def plain_objective(self, parameters, instance):
        residual = matrix_vector_product(instance["w"], parameters[0]) - instance["y"]
        return 0.5 * tf.reduce_sum(tf.square(residual), axis=[1, 2])


def gaussian_system(dimension: int, generator: np.random.Generator):
    """W `[n, n]` and y `[n, 1]`, both N(0, 1): the data of quadratics and norms."""
    return {
        "w": generator.standard_normal((dimension, dimension), dtype=np.float32),
        "y": generator.standard_normal((dimension, 1), dtype=np.float32),
    }


@dataclasses.dataclass(frozen=True)
class Bowl(AlgebraicTask):
    """f(x) = 1/2 ||A x||^2 with A = diag(sqrt(c), 1) R(angle), x `[2, 1]`."""

    condition_number: float = setting(
        dataclasses.MISSING, "c; below 1 the first axis is the flat one.", above=0
    )
    angle: float = setting(0.0, "Of the rotation R, in radians.")

    numbers = (*AlgebraicTask.numbers, "condition_number", "angle")

    @property
    def parameter_shapes(self):
        return ((2, 1),)

    def sample_problem(self, generator):
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        stretch = np.diag([math.sqrt(self.condition_number), 1.0])
        return {"matrix": (stretch @ rotation).astype(np.float32)}

    def plain_objective(self, parameters, instance):
        image = tf.matmul(instance["matrix"], parameters[0])
        return 0.5 * tf.reduce_sum(tf.square(image), axis=[1, 2])


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
