"""Residual networks against the same networks of Keras's own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as keras_layers

from meta_training.tasks.small_networks.residual_networks import (
    ResidualImageNetwork,
    ResidualPerceptron,
)


def layer_of_keras(task, units, stride):
    if isinstance(task, ResidualPerceptron):
        return keras_layers.Dense(units, use_bias=False)
    return keras_layers.Conv2D(units, 3, stride, "same", use_bias=False)


def by_keras(task, stages):
    """The network in the order in which its task lists the parameters.

    Args:
        task: The task.
        stages: Units of each block, its stride, and whether its shortcut has a kernel.
    """
    shape = getattr(task, "image_shape", None) or (task.inputs,)
    inputs = keras.Input(shape)
    variables = []

    def apply(layer, values):
        result = layer(values)
        variables.extend(layer.trainable_variables)
        return result

    def normalised(values):
        values = apply(keras_layers.BatchNormalization(), values)
        return keras_layers.Activation(task.activation)(values)

    hidden = apply(layer_of_keras(task, stages[0][0], 1), inputs)
    for units, stride, has_kernel in stages:
        before = normalised(hidden)
        inner = apply(layer_of_keras(task, units, stride), before)
        added = apply(layer_of_keras(task, units, 1), normalised(inner))
        if has_kernel:
            shortcut = keras_layers.Conv2D(units, 1, stride, use_bias=False)
            hidden = apply(shortcut, before)
        hidden = keras_layers.Add()([hidden, added])
    hidden = normalised(hidden)
    if len(shape) == 3:
        hidden = keras_layers.GlobalAveragePooling2D()(hidden)
    outputs = apply(keras_layers.Dense(task.classes), hidden)
    return keras.Model(inputs, outputs), variables


@pytest.mark.parametrize(
    "task, stages",
    [
        (ResidualPerceptron(6, 5, 3, 4), [(5, 1, False)] * 3),
        (
            ResidualImageNetwork((8, 6, 2), (3, 4), 2, 5, activation="tanh"),
            [(3, 1, False), (3, 1, False), (4, 2, True), (4, 1, False)],
        ),
    ],
    ids=["perceptron", "images"],
)
def test_outputs_are_those_of_keras(task, stages):
    generator = np.random.default_rng(1)
    instance = task.sample_instance(generator)
    start = task.sample_parameters(generator)
    model, variables = by_keras(task, stages)
    assert [tuple(v.shape) for v in variables] == list(task.parameter_shapes)
    # Scales start at 1, offsets and the last bias at 0, as those of Keras do.
    for variable, value in zip(variables, start, strict=True):
        if value.ndim == 1:
            np.testing.assert_array_equal(variable.numpy(), value)
    moved = [value + 0.1 * generator.normal(size=value.shape) for value in start]
    moved = [value.astype(np.float32) for value in moved]
    for variable, value in zip(variables, moved, strict=True):
        variable.assign(value)
    data = instance["data"][:20]
    arrays = {"data": data, "activation": instance["activation"]}
    arrays = {name: tf.constant(array[None]) for name, array in arrays.items()}
    found = task.predict([tf.constant(value[None]) for value in moved], arrays)
    expected = model(data, training=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ResidualPerceptron(6, 5, 0, 4), "blocks"),
        (lambda: ResidualPerceptron(6, -5, 1, 4), "width"),
        (lambda: ResidualPerceptron(6, 5, 1, 4, source="x"), "source"),
        (lambda: ResidualImageNetwork((8, 8, 1), (), 1, 4), "filters"),
        (lambda: ResidualImageNetwork((8, 0, 1), (3,), 1, 4), "image_shape"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
