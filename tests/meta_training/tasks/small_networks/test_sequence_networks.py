"""Attention and embedding networks against Keras's own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from meta_training.tasks.small_networks.sequence_networks import (
    AttentionNetwork,
    EmbeddingNetwork,
)
from tests.arrays import assert_close
from tests.meta_training.tasks.stacks import drawn


def moved_start(task, generator):
    start = task.sample_parameters(generator)
    return [np.float32(x + 0.1 * generator.normal(size=x.shape)) for x in start]


def outputs(task, values, data):
    activation = task.sample_instance(np.random.default_rng(0))["activation"]
    instance = {"data": data[None], "activation": activation[None]}
    instance = {name: tf.constant(array) for name, array in instance.items()}
    return task.predict([tf.constant(value[None]) for value in values], instance)[0]


@pytest.mark.parametrize("tokens", [5, 16])
def test_two_blocks_of_attention(tokens):
    width, heads = 8, 2
    task = AttentionNetwork(
        tokens, 6, width, 4, heads, blocks=2, positions=True, activation="tanh"
    )
    generator = np.random.default_rng(0)
    values = moved_start(task, generator)
    data = generator.normal(size=(7, tokens, 6)).astype(np.float32)
    remaining = iter(values)

    def dense(inputs):
        return inputs @ next(remaining) + next(remaining)

    def normalised(inputs):
        layer = layers.LayerNormalization(epsilon=1e-3)
        layer.build(inputs.shape)
        layer.set_weights([next(remaining), next(remaining)])
        return layer(inputs).numpy()

    stream = dense(data) + values[-1]
    for _ in range(2):
        query, key, value = np.split(dense(normalised(stream)), 3, axis=-1)
        parts = [part.reshape(7, tokens, heads, -1) for part in (query, value, key)]
        attended = keras.ops.nn.dot_product_attention(parts[0], parts[2], parts[1])
        stream = stream + dense(np.reshape(attended, (7, tokens, width)))
        stream = stream + dense(np.tanh(dense(normalised(stream))))
    expected = dense(stream.mean(axis=1))
    assert_close(outputs(task, values, data), expected, rtol=1e-3, atol=1e-4)


def test_embeddings():
    task = EmbeddingNetwork(30, 6, 4, 5, 3, activation="tanh")
    generator = np.random.default_rng(0)
    values = moved_start(task, generator)
    data = generator.integers(30, size=(7, 6)).astype(np.int32)
    embedding = layers.Embedding(30, 4)
    embedding.build()
    embedding.set_weights(values[:1])
    hidden = np.tanh(embedding(data).numpy().mean(axis=1) @ values[1] + values[2])
    expected = hidden @ values[3] + values[4]
    assert_close(outputs(task, values, data), expected, rtol=1e-4, atol=1e-5)


def test_rare_words_have_no_gradient():
    task = EmbeddingNetwork(400, 6, 4, 5, 3)
    parameters, instance = drawn([task])
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        loss = task.objective(parameters, instance)
    gradient = tf.convert_to_tensor(tape.gradient(loss, parameters[0]))[0].numpy()
    met = np.unique(instance["data"])
    assert 20 < len(met) < 200
    np.testing.assert_array_equal(np.flatnonzero(np.any(gradient, axis=1)), met)
