"""Functions whose derivatives are finite."""

import numpy as np
import tensorflow as tf

from meta_training.tasks.numerics import safe_sqrt


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
