"""Held-out architectures beside those of Keras."""

import keras
import numpy as np
import tensorflow as tf

from meta_training.held_out.architectures import HeldOutGatedRecurrentNetwork
from meta_training.held_out.data import load_data


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
