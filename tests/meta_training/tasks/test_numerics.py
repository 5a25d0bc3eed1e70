"""Functions whose derivatives are finite, or fast."""

import numpy as np
import tensorflow as tf

from meta_training.tasks.numerics import matrix_vector_product, safe_sqrt
from tests.arrays import assert_close


def test_safe_sqrt_has_two_finite_derivatives():
    x = tf.constant([0.0, 4.0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            root = safe_sqrt(x)
        first = inner.gradient(root, x)
    np.testing.assert_allclose(root, [0, 2])
    np.testing.assert_allclose(first, [0, 0.25])
    np.testing.assert_allclose(outer.gradient(first, x), [0, -0.03125])


def test_matrix_vector_product_and_both_derivatives_are_those_of_matmul():
    matrix = tf.random.stateless_normal([2, 4, 3], (0, 1))
    vector = tf.random.stateless_normal([2, 3, 1], (2, 3))

    def derivatives(product):
        with tf.GradientTape() as outer:
            outer.watch([matrix, vector])
            with tf.GradientTape() as inner:
                inner.watch([matrix, vector])
                result = product(matrix, vector)
                value = tf.reduce_sum(result**3)
            first = inner.gradient(value, [matrix, vector])
            total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
        return [result, *first, *outer.gradient(total, [matrix, vector])]

    found, expected = derivatives(matrix_vector_product), derivatives(tf.matmul)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
