"""Two-dimensional quadratic bowls (problem_generator.py, `Bowl`)."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from meta_training.tasks.released.algebraic import AlgebraicTask


@dataclasses.dataclass(frozen=True)
class Bowl(AlgebraicTask):
    """f(x) = 1/2 ||A x||^2 with A = diag(sqrt(c), 1) R(angle), x `[2, 1]`.

    Attributes:
        condition_number: c, positive; below 1 the first axis is the flat one.
        angle: of the rotation R, in radians. Defaults to 0.
    """

    condition_number: float
    angle: float = 0.0

    numbers = (*AlgebraicTask.numbers, "condition_number", "angle")

    def __post_init__(self):
        super().__post_init__()
        if not (math.isfinite(self.condition_number) and self.condition_number > 0):
            raise ValueError(
                "condition_number must be positive and finite. "
                f"Received: {self.condition_number!r}"
            )
        if not math.isfinite(self.angle):
            raise ValueError(f"angle must be finite. Received: {self.angle!r}")

    @property
    def parameter_shapes(self):
        return ((2, 1),)

    def sample_problem(self, generator):
        del generator
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        stretch = np.diag([math.sqrt(self.condition_number), 1.0])
        return {"matrix": (stretch @ rotation).astype(np.float32)}

    def plain_objective(self, parameters, instance):
        image = tf.matmul(instance["matrix"], parameters[0])
        return 0.5 * tf.reduce_sum(tf.square(image), axis=[1, 2])
