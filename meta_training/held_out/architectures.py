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
from meta_training.tasks.small_networks.networks import ClassifierNetwork, Network
from meta_training.tasks.small_networks.perceptrons import (
    Autoencoder,
    Perceptron,
    Regression,
)
from meta_training.tasks.small_networks.residual_networks import ResidualPerceptron
from meta_training.tasks.small_networks.sequence_networks import (
    AttentionNetwork,
    RecurrentNetwork,
)


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
class HeldOutResidualPerceptron(HeldOutNetwork, ResidualPerceptron):
    """A residual perceptron with batch normalisation."""


@dataclasses.dataclass(frozen=True)
class HeldOutAttention(HeldOutNetwork, AttentionNetwork):
    """Attention over rows of pixels."""


@dataclasses.dataclass(frozen=True)
class HeldOutRegression(HeldOutNetwork, Regression):
    """A perceptron, by squared error."""


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


@dataclasses.dataclass(frozen=True)
class LeNet(HeldOutNetwork, ClassifierNetwork):
    """LeNet-5 (LeCun et al. 1998) with rectifiers: 61,706 parameters.

    Two 5 x 5 convolutions, the second without padding, each followed by a mean over
    2 x 2 pixels; three dense layers.
    """

    classes: int = 10

    @property
    def parameter_shapes(self):
        convolutions = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,))
        return (*convolutions, *layers.dense_shapes((400, 120, 84, self.classes)))

    def outputs(self, parameters, data, activate, batch_normalise):
        images = data
        for layer in range(2):
            kernel, bias = parameters[2 * layer : 2 * layer + 2]
            padding = "VALID" if layer else "SAME"
            images = layers.convolve(images, kernel, padding=padding)
            images = activate(images + bias[:, tf.newaxis, tf.newaxis, tf.newaxis, :])
            images = layers.mean_pool(images, 2)
        hidden = tf.reshape(images, [-1, tf.shape(data)[1], 400])
        return layers.perceptron(parameters[4:], hidden, activate)


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(HeldOutNetwork, Network):
    """One hidden layer on each side (Kingma & Welling 2014), by the negative bound.

    The labels of its data are the noise of each row, so that losses can be compared;
    a run of 2,000 steps meets a row twice at most.

    Attributes:
        pixels, hidden, latent: units of the layers.
    """

    pixels: int
    hidden: int
    latent: int

    @property
    def parameter_shapes(self):
        encoder = layers.dense_shapes((self.pixels, self.hidden, 2 * self.latent))
        decoder = layers.dense_shapes((self.latent, self.hidden, self.pixels))
        return encoder + decoder

    def _predict(self, parameters, instance, batch_normalise):
        outputs = super()._predict(parameters, instance, batch_normalise)
        mean, log_variance = tf.split(outputs, 2, axis=-1)
        code = mean + tf.exp(0.5 * log_variance) * instance["labels"]
        activate = self.activation_of(instance)
        return layers.perceptron(parameters[4:], code, activate), mean, log_variance

    def outputs(self, parameters, data, activate, batch_normalise):
        return layers.perceptron(parameters[:4], data, activate)

    def loss(self, outputs, instance):
        logits, mean, log_variance = outputs
        pixels = layers.as_pixels(instance["data"])
        misfit = tf.nn.sigmoid_cross_entropy_with_logits(pixels, logits)
        divergence = tf.exp(log_variance) + tf.square(mean) - 1 - log_variance
        bound = tf.reduce_sum(misfit, -1) + 0.5 * tf.reduce_sum(divergence, -1)
        return tf.reduce_mean(bound, axis=1)
