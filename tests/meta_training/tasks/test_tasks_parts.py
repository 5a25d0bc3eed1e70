"""The parts of the networks and their data, against independent computations."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.tasks.numerics import safe_sqrt
from meta_training.tasks.small_networks import layers, random_data

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


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6, 6, 1), (7, 10, 3), (5, 4, 2)])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (5, 2), (1, 1)])
def test_convolve_is_a_convolution_for_each_task(stride, shape, kernel_shape):
    images = tf.random.stateless_normal([2, 4, *shape], (3, 4))
    kernel = tf.random.stateless_normal([2, *kernel_shape, shape[-1], 5], (5, 6))
    found = layers.convolve(images, kernel, stride)
    for index in range(2):
        expected = tf.nn.conv2d(images[index], kernel[index], stride, "SAME")
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


LABELLED = {
    "gaussian_mixture": ((6,), {}),
    "teacher_labels": ((6,), {}),
    "pattern_images": ((8, 8, 2), {"is_shape": True}),
    "grating_images": ((8, 8, 2), {"is_shape": True}),
    "wave_sequences": ((7, 3), {}),
    "marked_tokens": ((5, 4), {}),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_data_can_be_learned(name):
    """Every class occurs, and nearest neighbours do better than chance by far."""
    shape, options = LABELLED[name]
    draw = getattr(random_data, name)
    arguments = (shape,) if options.get("is_shape") else shape
    scores = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        data, labels = draw(generator, 600, *arguments, 4)
        assert data.shape == (600, *shape)
        assert np.isfinite(data).all()
        assert (np.bincount(labels, minlength=4) > 5).all()
        flat = data.reshape(600, -1)
        distances = ((flat[:200, None] - flat[None, 200:]) ** 2).sum(axis=-1)
        guesses = labels[200:][distances.argmin(axis=1)]
        scores.append((guesses == labels[:200]).mean())
    assert np.mean(scores) > 0.35


def test_label_noise_changes_the_given_fraction():
    generator = np.random.default_rng(0)
    labels = generator.integers(5, size=20_000)
    noisy = random_data.with_label_noise(generator, labels, 5, 0.25)
    # A label drawn anew is the old one in one case of five.
    assert (noisy != labels).mean() == pytest.approx(0.25 * 0.8, abs=0.02)


def test_teacher_outputs_are_standardised():
    data, targets = random_data.teacher_outputs(np.random.default_rng(0), 500, 6, 3)
    assert (data.shape, targets.shape) == ((500, 6), (500, 3))
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.std(axis=0), 1, atol=1e-3)
