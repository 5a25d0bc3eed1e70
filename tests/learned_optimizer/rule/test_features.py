"""Functions that features are made of."""

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.features import asinh, decay_sigmoid


def test_the_sigmoid_and_asinh_are_exact_where_it_matters():
    x = np.float32([-100, -85, -30, -3, -1e-4, 0, 1e-4, 2, 30])
    with tf.GradientTape(persistent=True) as tape:
        points = tf.constant(x)
        tape.watch(points)
        curve, gate = asinh(points), decay_sigmoid(points)
    np.testing.assert_allclose(curve, np.arcsinh(np.float64(x)), rtol=1e-5, atol=2e-7)
    slope = tape.gradient(curve, points)
    np.testing.assert_allclose(slope, 1 / np.sqrt(1 + np.float64(x) ** 2), rtol=2e-3)
    exact = 1 / (1 + np.exp(-np.maximum(np.float64(x), -80)))
    np.testing.assert_allclose(gate, exact, rtol=1e-5)
