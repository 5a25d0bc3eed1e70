"""Problems with a deliberate structure (problem_generator.py of the released code).

The released command line leaves all of them off. Those with data draw minibatches
of random binary or symmetric rows, as released.
"""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from meta_training.tasks.base import Task
from meta_training.tasks.numerics import safe_sqrt
from meta_training.tasks.released import datasets


@dataclasses.dataclass(frozen=True)
class DependencyChain(Task):
    """n x_0^2 + sum of x_(i+1)^2 / (x_i^2 + 1e-6): parameters are solved in order.

    The released sets give it data, which the objective never reads, so that here it
    has none.

    Attributes:
        dimension: n; there are n + 1 parameters.
    """

    dimension: int

    @property
    def parameter_shapes(self):
        return ((self.dimension + 1,),)

    def objective(self, parameters, instance):
        squares = tf.square(parameters[0])
        ratios = squares[:, 1:] / (squares[:, :-1] + 1e-6)
        # The released sum adds the first square once for every link of the chain.
        return self.dimension * squares[:, 0] + tf.reduce_sum(ratios, axis=-1)


@dataclasses.dataclass(frozen=True)
class MinMaxWell(Task):
    """max x^2 + 1 / min x^2 - 2 + 1e-12: all but two gradient elements are zero."""

    dimension: int

    @property
    def parameter_shapes(self):
        return ((self.dimension,),)

    def objective(self, parameters, instance):
        squares = tf.square(parameters[0])
        largest = tf.reduce_max(squares, axis=-1)
        smallest = tf.reduce_min(squares, axis=-1)
        return largest + 1 / smallest - 2 + 1e-12


@dataclasses.dataclass(frozen=True)
class IsotropicQuadratic(Task):
    """The sum of the squares of all parameters, in tensors of the given shapes."""

    shapes: tuple[tuple[int, ...], ...]

    @property
    def parameter_shapes(self):
        return self.shapes

    def objective(self, parameters, instance):
        return sum(
            tf.reduce_sum(tf.square(tensor), axis=range(1, tensor.shape.rank))
            for tensor in parameters
        )


@dataclasses.dataclass(frozen=True)
class RowTask(Task):
    """Base of the problems with rows of random data.

    Attributes:
        dimension: columns of the data.
        rows: rows of the data. Defaults to 1,000.
    """

    dimension: int
    rows: int = 1000

    row_arrays: ClassVar[tuple[str, ...]] = ("data",)

    @property
    def parameter_shapes(self):
        return ((1, self.dimension),)

    def sample_instance(self, generator):
        random_state = datasets.legacy_random_state(generator)
        return {"data": self.dataset(self.dimension, self.rows, random_state).data}


@dataclasses.dataclass(frozen=True)
class OutwardSnake(RowTask):
    """A winding path to infinity along which the ideal step length stays constant.

    The sum over rows d of d_0 / (|x| + 1e-6) + sum ((x_(i+1) - π cos x_i) d_(i+1))^2,
    d binary.
    """

    dataset = staticmethod(datasets.random_binary)

    @property
    def parameter_shapes(self):
        return ((self.dimension,),)

    def objective(self, parameters, instance):
        position, data = parameters[0], instance["data"]
        radius = safe_sqrt(tf.reduce_sum(tf.square(position), axis=-1))
        outward = tf.reduce_sum(data[:, :, 0], axis=-1) / (radius + 1e-6)
        offset = position[:, 1:] - math.pi * tf.cos(position[:, :-1])
        snake = tf.square(offset[:, tf.newaxis, :] * data[:, :, 1:])
        return outward + tf.reduce_sum(snake, axis=[1, 2])


@dataclasses.dataclass(frozen=True)
class SumOfQuadratics(RowTask):
    """sum |x - d|^2 - sum |d|^2 + 1e-12 over rows d that come with their negatives.

    On the whole data the minimum is 1e-12, at 0; a minibatch can be negative, where
    the released log objective gives NaN, so that `positive` is False with one.
    """

    dataset = staticmethod(datasets.random_symmetric)

    @property
    def positive(self):
        return self.batch_size is None

    def objective(self, parameters, instance):
        data = instance["data"]
        distances = tf.reduce_sum(tf.square(parameters[0] - data), axis=[1, 2])
        return distances - tf.reduce_sum(tf.square(data), axis=[1, 2]) + 1e-12


@dataclasses.dataclass(frozen=True)
class ProjectionQuadratic(RowTask):
    """The sum over rows d of |x ∘ d|^2: each step probes some directions."""

    dataset = staticmethod(datasets.random_symmetric)

    def objective(self, parameters, instance):
        return tf.reduce_sum(tf.square(parameters[0] * instance["data"]), axis=[1, 2])
