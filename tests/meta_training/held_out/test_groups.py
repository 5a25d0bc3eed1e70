"""Held-out networks: they share nothing with meta-training, and are what they say."""

import heapq
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_training.held_out import data as data_module
from meta_training.held_out import list_network_groups, network_group
from meta_training.held_out.architectures import HeldOutGatedRecurrentNetwork
from meta_training.held_out.data import load_data
from meta_training.held_out.final import VariationalAutoencoder
from meta_training.tasks import list_task_sets, task_set


def test_held_out_networks_share_nothing_with_meta_training():
    groups = {name: network_group(name) for name in list_network_groups()}
    trained = {
        task.parameter_shapes for name in list_task_sets() for task in task_set(name)
    }
    shapes = [task.parameter_shapes for group in groups.values() for task in group]
    # The final group has one network twice, on more and on less data.
    assert len(set(shapes)) == len(shapes) - 1 and not set(shapes) & trained
    data = {name: {task.data_set for task in group} for name, group in groups.items()}
    assert sum(map(len, data.values())) == len(set().union(*data.values()))
    assert all("digit" in name for name in data["test"])
    assert not set(groups) & set(list_task_sets())
    largest = max(groups["validation"], key=lambda task: task.parameter_count)
    assert largest.parameter_count >= 1e6 and largest.normalisation == "batch"


@pytest.mark.parametrize(
    "name, digest",
    [("validation", 0xC5A8273C), ("test", 0xEE4CD61E), ("final", 0x22AD5804)],
)
def test_groups_stay_those_of_published_figures(name, digest):
    assert zlib.crc32(repr(network_group(name)).encode()) == digest


@pytest.mark.parametrize(
    "name, inputs, targets",
    [
        ("breast_cancer", 0.996058, 0.483766),
        ("spirals", 1.04037, 1.72400),
        ("drawings", 0.427796, 2.61156),
        ("flat_drawings", 0.444835, 2.56822),
        ("digits", 0.376119, 2.86450),
        ("diabetes", 1.00812, 2.00063),
    ],
)
def test_data_stay_those_of_published_figures(name, inputs, targets):
    """By their standard deviations."""
    data = load_data(name)
    found = [data.training_inputs.std(), data.training_targets.std()]
    assert found == pytest.approx([inputs, targets], rel=1e-4)


@pytest.mark.parametrize(
    "task",
    network_group("test") + network_group("validation")[:-1],
    ids=lambda task: task.name,
)
def test_held_out_networks_start_where_they_should(task):
    generator = np.random.default_rng(0)
    values = [value[None] for value in task.sample_parameters(generator)]
    instance = {k: v[None] for k, v in task.sample_instance(generator).items()}
    loss = task.objective(values, instance).numpy()
    is_classifier = hasattr(task, "classes")
    assert loss.shape == (1,)
    assert (0.5 * np.log(task.classes) if is_classifier else 0) < loss[0] < 3
    data = load_data(task.data_set)
    training = {row.tobytes() for row in data.training_inputs}
    assert not any(row.tobytes() in training for row in data.test_inputs)
    if is_classifier:
        assert set(data.training_targets) == set(range(task.classes))


def test_gated_recurrent_network_is_that_of_keras():
    task = HeldOutGatedRecurrentNetwork(
        8, 8, 5, 10, title="x", data_set="digit_rows", activation="tanh"
    )
    generator = np.random.default_rng(0)
    start = task.sample_parameters(generator)
    start[2] = generator.normal(size=start[2].shape).astype(np.float32)
    layer = keras.layers.GRU(5, reset_after=False)
    layer.build((None, 8, 8))
    layer.set_weights(start[:3])
    data = load_data("digit_rows").test_inputs[:4]
    expected = layer(data).numpy() @ start[3] + start[4]
    values = [tf.constant(value[None]) for value in start]
    ours = task.predict(values, {"data": tf.constant(data[None])})[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


# The final group.


@pytest.fixture
def mnist(monkeypatch):
    """A few random bytes in the place of MNIST."""
    generator = np.random.default_rng(0)
    parts = [
        (
            generator.integers(256, size=(rows, 28, 28, 1)).astype(np.uint8),
            generator.integers(10, size=rows).astype(np.int32),
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
    model = keras.Sequential(
        [
            keras.Input([28, 28, 1]),
            keras.layers.Conv2D(6, 5, padding="same", activation="relu"),
            keras.layers.AveragePooling2D(2),
            keras.layers.Conv2D(16, 5, activation="relu"),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(120, activation="relu"),
            keras.layers.Dense(84, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    assert model.count_params() == task.parameter_count == 61_706
    start = task.sample_parameters(np.random.default_rng(0))
    model.set_weights(start)
    images = load_data(task.data_set).test_inputs[:5]
    found = task.predict(
        [tf.constant(value[None]) for value in start],
        {"data": tf.constant(images[None])},
    )
    np.testing.assert_allclose(
        found[0], model(images.astype(np.float32) / 255), rtol=1e-3, atol=1e-4
    )


def test_variational_bound_by_hand(mnist):
    task = VariationalAutoencoder(784, 5, 3, title="x", data_set="mnist_and_noise")
    generator = np.random.default_rng(0)
    values = [
        (value + 0.1 * generator.normal(size=value.shape)).astype(np.float32)
        for value in task.sample_parameters(generator)
    ]
    images = generator.integers(256, size=(4, 784)).astype(np.uint8)
    noise = generator.normal(size=(4, 3)).astype(np.float32)
    found = task.objective(
        [tf.constant(value[None]) for value in values],
        {"data": tf.constant(images[None]), "labels": tf.constant(noise[None])},
    )
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


def test_text_is_windows_and_what_comes_next():
    data = load_data("text")
    characters = sorted(set(heapq.__about__))
    window = "".join(characters[code] for code in data.training_inputs[100].argmax(-1))
    place = heapq.__about__.index(window)
    assert characters[data.training_targets[100]] == heapq.__about__[place + 20]
    last = "".join(characters[code] for code in data.test_inputs[-1].argmax(-1))
    assert heapq.__about__.endswith(last + characters[data.test_targets[-1]])


def test_another_text_is_refused(monkeypatch):
    monkeypatch.setattr(heapq, "__about__", "Heaps")
    load_data.cache_clear()
    with pytest.raises(ValueError, match="of sha256 .* Received: .*another Python"):
        load_data("text")


def test_missing_mnist_is_refused_and_says_what_to_do(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=tmp_path))
    data_module._read_mnist.cache_clear()
    load_data.cache_clear()
    with pytest.raises(ValueError, match="MNIST must .*TFDS_DATA_DIR .*Received: "):
        load_data("mnist")
    assert network_group("final")[0].rows == 60_000


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: network_group("train"), "one of 'validation', .*'train'"),
        (lambda: load_data("cifar"), "data set must be one of .*'cifar'"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
