"""Random quadratics: f(x) = 1/2 ||W x - y||^2 (problem_generator.py, `Quadratic`)."""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_training.tasks.numerics import matrix_vector_product
from meta_training.tasks.released.algebraic import AlgebraicTask


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
