"""The networks of the final group, on a few random bytes in the place of MNIST."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_training.held_out import data as data_module
from meta_training.held_out import network_group
from meta_training.held_out.architectures import VariationalAutoencoder
from meta_training.held_out.data import load_data


@pytest.fixture
def mnist(monkeypatch):
    """A few random bytes in the place of MNIST."""
    generator = np.random.default_rng(0)
    integers = generator.integers
    parts = [
        (
            np.uint8(integers(256, size=(rows, 28, 28, 1))),
            np.int32(integers(10, size=rows)),
        )
        for rows in (2100, 2050)
    ]
    monkeypatch.setattr(data_module, "_read_mnist", lambda: parts)
    monkeypatch.setattr(data_module, "_MNIST_ROWS", 2100)
    load_data.cache_clear()
    yield
    load_data.cache_clear()


def test_final_networks_start_where_they_should(mnist):
    """Classifiers near the logarithm of their classes; losses of bytes are finite."""
    for task in network_group("final"):
        generator = np.random.default_rng(0)
        values = [tf.constant(v[None]) for v in task.sample_parameters(generator)]
        instance = {
            name: tf.constant(array[None, :50])
            for name, array in task.sample_instance(generator).items()
        }
        loss = float(task.objective(values, instance)[0])
        if hasattr(task, "classes"):
            assert 0.5 * np.log(task.classes) < loss < 2.1 * np.log(task.classes)
            test = {k: tf.constant(v[None]) for k, v in task.test_instance().items()}
            assert 0 <= float(task.accuracy(values, test)[0]) < 0.5
        else:
            assert 0.5 < loss < 1.5 * 784
        data = load_data(task.data_set)
        assert task.rows == len(data.training_inputs) == len(data.training_targets)


def test_lenet_is_that_of_keras(mnist):
    task = network_group("final")[0]
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([28, 28, 1]),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ]
    )
    assert model.count_params() == task.parameter_count == 61_706
    start = task.sample_parameters(np.random.default_rng(0))
    model.set_weights(start)
    images = load_data(task.data_set).test_inputs[:5]
    values = [tf.constant(value[None]) for value in start]
    found = task.predict(values, {"data": tf.constant(images[None])})[0]
    expected = model(images.astype(np.float32) / 255)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_variational_bound_by_hand(mnist):
    task = VariationalAutoencoder(784, 5, 3, title="x", data_set="mnist_and_noise")
    generator = np.random.default_rng(0)
    values = [
        (value + 0.1 * generator.normal(size=value.shape)).astype(np.float32)
        for value in task.sample_parameters(generator)
    ]
    images = generator.integers(256, size=(4, 784)).astype(np.uint8)
    noise = generator.normal(size=(4, 3)).astype(np.float32)
    instance = {"data": tf.constant(images[None]), "labels": tf.constant(noise[None])}
    found = task.objective([tf.constant(value[None]) for value in values], instance)
    pixels = images / 255
    hidden = np.maximum(pixels @ values[0] + values[1], 0)
    mean, log_variance = np.split(hidden @ values[2] + values[3], 2, axis=1)
    code = mean + np.exp(log_variance / 2) * noise
    hidden = np.maximum(code @ values[4] + values[5], 0)
    drawn = 1 / (1 + np.exp(-(hidden @ values[6] + values[7])))
    likelihood = pixels * np.log(drawn) + (1 - pixels) * np.log(1 - drawn)
    variance = np.exp(log_variance)
    divergence = 0.5 * (variance + mean**2 - 1 - log_variance).sum(axis=1)
    expected = np.mean(divergence - likelihood.sum(axis=1))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
