"""The parts of networks against independent computations."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.tasks.small_networks import layers

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "gelu": lambda x: x / (1 + tf.exp(-1.702 * x)),
    "sigmoid": tf.sigmoid,
}


def test_activate_blends_every_activation():
    values = tf.random.stateless_normal([4, 3, 7], (1, 2), stddev=3.0)
    coefficients = np.stack([layers.activation_coefficients(n) for n in ACTIVATIONS])
    blended = layers.activate(values, tf.constant(coefficients))
    for index, (name, expected) in enumerate(ACTIVATIONS.items()):
        np.testing.assert_allclose(
            blended[index], expected(values[index]), rtol=1e-5, atol=1e-6
        )
        alone = layers.activation_function(name)(values[index])
        np.testing.assert_allclose(alone, expected(values[index]), rtol=1e-5, atol=1e-6)
    exact = tf.nn.gelu(values[2])
    np.testing.assert_allclose(blended[2], exact, atol=0.03)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6, 6, 1), (7, 10, 3), (5, 4, 2)])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (5, 2), (1, 1)])
def test_convolve_is_a_convolution_for_each_task(stride, shape, kernel_shape, padding):
    images = tf.random.stateless_normal([2, 4, *shape], (3, 4))
    kernel = tf.random.stateless_normal([2, *kernel_shape, shape[-1], 5], (5, 6))
    found = layers.convolve(images, kernel, stride, padding)
    for index in range(2):
        expected = tf.nn.conv2d(images[index], kernel[index], stride, padding)
        np.testing.assert_allclose(found[index], expected, rtol=1e-4, atol=1e-4)


def test_mean_pool():
    images = tf.random.stateless_normal([2, 3, 6, 4, 5], (7, 8))
    found = layers.mean_pool(images, 2)
    for index in range(2):
        expected = tf.nn.avg_pool2d(images[index], 2, 2, "VALID")
        np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_normalisation(axis):
    values = np.random.default_rng(0).normal(3, 2, (2, 9, 4)).astype(np.float32)
    scale = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    batch_normalise = layers.BatchNormalisation()
    normalise = batch_normalise if axis == 1 else layers.layer_normalise
    found = normalise(tf.constant(values), tf.constant(scale), tf.constant(-scale))
    mean = values.mean(axis=axis, keepdims=True)
    deviation = np.sqrt(values.var(axis=axis, keepdims=True) + 1e-3)
    expected = (values - mean) / deviation * scale[:, None] - scale[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    if axis == 1:
        statistics = batch_normalise.statistics
        np.testing.assert_allclose(statistics[0], mean[:, 0], rtol=1e-4)
        np.testing.assert_allclose(statistics[1], values.var(axis=1), rtol=1e-3)


def test_cross_entropy():
    logits = tf.random.stateless_normal([2, 6, 4], (1, 1), stddev=5.0)
    labels = tf.constant([[0, 1, 2, 3, 0, 1], [3, 3, 2, 2, 1, 0]])
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    np.testing.assert_allclose(
        layers.cross_entropy(logits, labels), tf.reduce_mean(expected, 1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("initialisation", "variance"),
    [("he_normal", 2 / 90), ("lecun_normal", 1 / 90), ("glorot_uniform", 2 / 540)],
)
def test_initialisation_variance(initialisation, variance):
    # Fan-in 3 * 3 * 10 = 90, fan-out 3 * 3 * 50 = 450.
    generator = np.random.default_rng(0)
    kernel = layers.initialise((3, 3, 10, 50), initialisation, generator)
    assert kernel.var() == pytest.approx(variance, rel=0.05)
    assert abs(kernel.mean()) < 0.01
    assert not layers.initialise((50,), initialisation, generator).any()
