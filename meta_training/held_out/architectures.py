"""Networks on fixed data that meta-training never sees.

They are `Task`s, so that many runs (learning rates, seeds) train side by side along
a leading axis, but they are in no task set: a trainer cannot be told to train on them
by name. Each has a `title`, a data set, and a `test_instance`.
"""

import dataclasses
import re

import numpy as np
import tensorflow as tf

from meta_training.held_out.data import load_data, training_rows
from meta_training.tasks.small_networks import layers
from meta_training.tasks.small_networks.image_networks import ImageNetwork
from meta_training.tasks.small_networks.perceptrons import Autoencoder, Perceptron
from meta_training.tasks.small_networks.sequence_networks import RecurrentNetwork


@dataclasses.dataclass(frozen=True)
class HeldOutNetwork:
    """What makes a network of `meta_training.tasks` a held-out one; see below.

    Attributes:
        title: what reports call it.
        data_set: name of its data, see `data.load_data`. All its training rows are
            used, so `rows` is set from it, and `source` of the base means nothing.
            Bytes are pixels, in [0, 1] to the network.
        recorded_rows: how many of the first rows a recorded loss is of. None: all.
    """

    _: dataclasses.KW_ONLY
    title: str
    data_set: str
    recorded_rows: int | None = None

    # The activation is part of the computation here: no two networks share one.
    numbers = ("initialisation", "title")

    def __post_init__(self):
        object.__setattr__(self, "rows", training_rows(self.data_set))
        super().__post_init__()

    @property
    def name(self):
        return re.sub(r"[ -]", "_", self.title.lower().replace(",", ""))

    def sample_data(self, generator):
        data = load_data(self.data_set)
        return data.training_inputs, data.training_targets

    def sample_instance(self, generator):
        data, labels = self.sample_data(generator)
        return {"data": data, "labels": labels}

    def test_instance(self):
        """The instance of the rows that are kept for the test."""
        data = load_data(self.data_set)
        return {"data": data.test_inputs, "labels": data.test_targets}

    def activation_of(self, instance):
        return layers.activation_function(self.activation)

    def _predict(self, parameters, instance, batch_normalise):
        pixels = {**instance, "data": layers.as_pixels(instance["data"])}
        return super()._predict(parameters, pixels, batch_normalise)


@dataclasses.dataclass(frozen=True)
class HeldOutPerceptron(HeldOutNetwork, Perceptron):
    """A perceptron, with or without batch or layer normalisation."""


@dataclasses.dataclass(frozen=True)
class HeldOutImageNetwork(HeldOutNetwork, ImageNetwork):
    """A convolutional network."""


@dataclasses.dataclass(frozen=True)
class HeldOutAutoencoder(HeldOutNetwork, Autoencoder):
    """An autoencoder, by squared error."""


@dataclasses.dataclass(frozen=True)
class HeldOutGatedRecurrentNetwork(HeldOutNetwork, RecurrentNetwork):
    """A GRU over a sequence and a dense layer on its last state (Cho et al. 2014).

    No meta-training task has gates. The recurrent kernel starts orthogonal in each
    of its three parts, as in Keras.
    """

    parts = 3

    def sample_parameters(self, generator):
        # Without the draws of the simple network.
        start = super(RecurrentNetwork, self).sample_parameters(generator)
        parts = [
            np.linalg.qr(generator.normal(size=(self.units,) * 2))[0]
            for _ in range(self.parts)
        ]
        start[1] = np.concatenate(parts, axis=1).astype(np.float32)
        return start

    def outputs(self, parameters, data, activate, batch_normalise):
        kernel, recurrent, bias, *readout = parameters
        inputs = layers.dense_of_sequences(data, kernel, bias)
        sizes = [2 * self.units, self.units]
        gates, candidate = tf.split(recurrent, sizes, axis=-1)
        state = tf.zeros_like(inputs[0][..., : self.units])
        for step in range(self.steps):
            to_gates, to_candidate = tf.split(inputs[step], sizes, axis=-1)
            update, reset = tf.split(
                tf.sigmoid(to_gates + tf.matmul(state, gates)), 2, axis=-1
            )
            proposed = activate(to_candidate + tf.matmul(reset * state, candidate))
            state = update * state + (1 - update) * proposed
        return layers.dense(state, *readout)
