"""Classic two-dimensional test functions (problem_generator.py, `Problem2D`).

The functions share one `batch_key`: which of them a task is travels as a number in
its instance. A stack evaluates all of them on all its tasks, a few hundred
elementwise operations on tiny vectors, and keeps the one that each task is. That
costs less than compiling and calling ten computations apart.

The offsets of the released code make every function but the saddle nonnegative:
Styblinski-Tang + 80 (at least 1.66), Michalewicz + 2.
"""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from meta_training.tasks.base import Task
from meta_training.tasks.numerics import safe_sqrt


@dataclasses.dataclass(frozen=True)
class TwoDimensional(Task):
    """Base of the test functions; a subclass gives `value` and its start box.

    Attributes:
        low, high: the start is uniform between them, coordinate by coordinate;
            where `low` is None it is N(0, 1).
    """

    low: ClassVar[tuple[float, float] | None] = None
    high: ClassVar[tuple[float, float] | None] = None

    functions: ClassVar[list[type["TwoDimensional"]]] = []

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.function_index = len(TwoDimensional.functions)
        TwoDimensional.functions.append(cls)

    @staticmethod
    @abc.abstractmethod
    def value(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The function of two `[tasks]` vectors; must be finite at (1, 1)."""

    @property
    def batch_key(self):
        return (TwoDimensional,)

    @property
    def parameter_shapes(self):
        return ((2,),)

    def sample_instance(self, generator):
        return {"function_index": np.int32(self.function_index)}

    def sample_parameters(self, generator):
        if self.low is None:
            return super().sample_parameters(generator)
        return [generator.uniform(self.low, self.high).astype(np.float32)]

    def objective(self, parameters, instance):
        x, y = tf.unstack(parameters[0], axis=-1)
        total = tf.zeros_like(x)
        for index, function in enumerate(TwoDimensional.functions):
            is_chosen = tf.equal(instance["function_index"], index)
            # Elsewhere the function is taken at (1, 1), where all are finite, so
            # that a function not chosen cannot send NaN into the gradient.
            value = function.value(
                tf.where(is_chosen, x, 1.0), tf.where(is_chosen, y, 1.0)
            )
            total += tf.where(is_chosen, value, 0.0)
        return total


class Rosenbrock(TwoDimensional):
    """(1 - x)^2 + 100 (y - x^2)^2; 0 at (1, 1)."""

    low, high = (-5.0, -5.0), (10.0, 10.0)

    @staticmethod
    def value(x, y):
        return tf.square(1 - x) + 100 * tf.square(y - tf.square(x))


class Saddle(TwoDimensional):
    """x^2 - y^2: unbounded below."""

    positive = False

    @staticmethod
    def value(x, y):
        return tf.square(x) - tf.square(y)


class LogSumExp(TwoDimensional):
    """log(e^(x+3y-0.1) + e^(x-3y-0.1) + e^(-x-0.1) + 1), without overflow."""

    @staticmethod
    def value(x, y):
        exponents = [x + 3 * y - 0.1, x - 3 * y - 0.1, -x - 0.1, tf.zeros_like(x)]
        return tf.reduce_logsumexp(tf.stack(exponents), axis=0)


class Ackley(TwoDimensional):
    """-20 e^(-0.2 r) - e^((cos 2πx + cos 2πy) / 2) + e + 20, r the RMS of x and y.

    The released gradient is NaN at the origin, its minimum; here it is zero.
    """

    low, high = (-32.768, -32.768), (32.768, 32.768)

    @staticmethod
    def value(x, y):
        radius = safe_sqrt(0.5 * (tf.square(x) + tf.square(y)))
        ripple = 0.5 * (tf.cos(2 * math.pi * x) + tf.cos(2 * math.pi * y))
        return -20 * tf.exp(-0.2 * radius) - tf.exp(ripple) + math.e + 20


class Beale(TwoDimensional):
    """(1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2."""

    low, high = (-4.5, -4.5), (4.5, 4.5)

    @staticmethod
    def value(x, y):
        square, cube = tf.square(y), y * tf.square(y)
        return (
            tf.square(1.5 - x + x * y)
            + tf.square(2.25 - x + x * square)
            + tf.square(2.625 - x + x * cube)
        )


class Booth(TwoDimensional):
    """(x + 2y - 7)^2 + (2x + y - 5)^2: a long valley."""

    low, high = (-10.0, -10.0), (10.0, 10.0)

    @staticmethod
    def value(x, y):
        return tf.square(x + 2 * y - 7) + tf.square(2 * x + y - 5)


class StyblinskiTang(TwoDimensional):
    """(x^4 - 16x^2 + 5x + y^4 - 16y^2 + 5y) / 2 + 80: four minima."""

    low, high = (-5.0, -5.0), (5.0, 5.0)

    @staticmethod
    def value(x, y):
        def quartic(z):
            return tf.square(tf.square(z)) - 16 * tf.square(z) + 5 * z

        return 0.5 * (quartic(x) + quartic(y)) + 80


class Matyas(TwoDimensional):
    """0.26 (x^2 + y^2) - 0.48 xy: a flat valley."""

    low, high = (-10.0, -10.0), (10.0, 10.0)

    @staticmethod
    def value(x, y):
        return 0.26 * (tf.square(x) + tf.square(y)) - 0.48 * x * y


class Branin(TwoDimensional):
    """(y - 5.1x^2/4π^2 + 5x/π - 6)^2 + 10 (1 - 1/8π) cos x + 10: three minima."""

    low, high = (-5.0, 0.0), (10.0, 15.0)

    @staticmethod
    def value(x, y):
        parabola = 5.1 / (4 * math.pi**2) * tf.square(x)
        distance = y - parabola + 5 / math.pi * x - 6
        return tf.square(distance) + 10 * (1 - 1 / (8 * math.pi)) * tf.cos(x) + 10


class Michalewicz(TwoDimensional):
    """2 - sin x sin^10(x^2/π) - sin y sin^10(2y^2/π): plateaus and steep ridges."""

    low, high = (0.0, 0.0), (math.pi, math.pi)

    @staticmethod
    def value(x, y):
        def ridge(z, frequency):
            wave = tf.sin(frequency * tf.square(z) / math.pi)
            fourth = tf.square(tf.square(wave))
            return tf.sin(z) * tf.square(wave) * tf.square(fourth)

        return 2 - ridge(x, 1) - ridge(y, 2)
