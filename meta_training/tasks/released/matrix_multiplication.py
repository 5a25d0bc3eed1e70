"""The search for matrix multiplication algorithms (`MatMulAlgorithm`)."""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_training.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class MatrixMultiplication(Task):
    """How far k products are from an algorithm that multiplies n x n matrices.

    Such an algorithm is c = ((vec a · Θa) ∘ (vec b · Θb)) Θc for all a and b; it
    suffices that it holds where a and b have a single 1. With P the n^4 rows of
    that product and C those of the true products,

        f(Θa, Θb) = min over Θc of ||P Θc - C||^2,  P[(i, j)] = Θa[i] ∘ Θb[j].

    n = 2 has solutions for k = 7 and 8, n = 3 for k = 23 and more. The instance is
    empty. (problem_generator.py of the released code.)

    Attributes:
        size: n, 2 or more.
        products: k, from n^2 to n^3. The parameters are Θa and Θb, `[n^2, k]`.
    """

    size: int
    products: int

    def __post_init__(self):
        super().__post_init__()
        if self.size < 2:
            raise ValueError(f"size must be 2 or more. Received: {self.size!r}")
        if not self.size**2 <= self.products <= self.size**3:
            raise ValueError(
                f"products must be from size^2 = {self.size**2} to "
                f"size^3 = {self.size**3}. Received: {self.products!r}"
            )

    @property
    def parameter_shapes(self):
        return ((self.size**2, self.products),) * 2

    def sample_parameters(self, generator):
        """N(0, 1) with every column scaled to length 1."""
        return [
            tensor / np.linalg.norm(tensor, axis=0, keepdims=True)
            for tensor in super().sample_parameters(generator)
        ]

    def objective(self, parameters, instance):
        left, right = parameters
        rows = left[:, :, tf.newaxis, :] * right[:, tf.newaxis, :, :]
        rows = tf.reshape(rows, [-1, self.size**4, self.products])
        # P'P is the elementwise product of the two Gram matrices.
        gram = tf.matmul(left, left, transpose_a=True) * tf.matmul(
            right, right, transpose_a=True
        )
        target = tf.constant(self._true_products())
        moments = tf.einsum("trk,rc->tkc", rows, target)
        solution = tf.matmul(tf.linalg.inv(gram), moments)
        error = tf.matmul(rows, solution) - target
        return tf.reduce_sum(tf.square(error), axis=[1, 2])

    def _true_products(self) -> np.ndarray:
        """C, `[n^4, n^2]`: row (i, j) is vec of the product of unit matrices i, j."""
        units = np.eye(self.size**2).reshape(-1, self.size, self.size)
        products = np.einsum("iab,jbc->ijac", units, units)
        return products.reshape(self.size**4, self.size**2).astype(np.float32)
