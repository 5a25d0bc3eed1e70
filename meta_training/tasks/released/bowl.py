"""Two-dimensional quadratic bowls (problem_generator.py, `Bowl`)."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.released.algebraic import AlgebraicTask


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
