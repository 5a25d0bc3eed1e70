"""The final group: it evaluates weights that are to ship, once each.

Other data than the other two groups: MNIST, a text that Python ships, and a table of
scikit-learn that nothing else here uses. Nothing is chosen by it; `publish` opens it.
"""

import dataclasses

import tensorflow as tf

from meta_training.held_out.architectures import (
    HeldOutGatedRecurrentNetwork,
    HeldOutNetwork,
    HeldOutPerceptron,
)
from meta_training.held_out.data import TEXT_CHARACTERS, TEXT_WINDOW, VAE_LATENT
from meta_training.tasks.base import Task
from meta_training.tasks.small_networks import layers
from meta_training.tasks.small_networks.networks import ClassifierNetwork, Network
from meta_training.tasks.small_networks.perceptrons import Regression
from meta_training.tasks.small_networks.residual_networks import ResidualPerceptron
from meta_training.tasks.small_networks.sequence_networks import AttentionNetwork


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
class HeldOutResidualPerceptron(HeldOutNetwork, ResidualPerceptron):
    """A residual perceptron with batch normalisation."""


@dataclasses.dataclass(frozen=True)
class HeldOutAttention(HeldOutNetwork, AttentionNetwork):
    """Attention over rows of pixels."""


@dataclasses.dataclass(frozen=True)
class HeldOutRegression(HeldOutNetwork, Regression):
    """A perceptron, by squared error."""


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


def final() -> list[Task]:
    """Seven kinds of network; losses of the first 2,000 rows where there are more."""
    mnist = {"activation": "relu", "recorded_rows": 2000}
    return [
        LeNet(
            title="LeNet on MNIST",
            data_set="mnist_images",
            initialisation="he_normal",
            **mnist,
        ),
        LeNet(
            title="LeNet on 2,000 images of MNIST",
            data_set="mnist_images_2000",
            initialisation="he_normal",
            **mnist,
        ),
        HeldOutPerceptron(
            784,
            (1024,),
            10,
            title="Wide ReLU perceptron on MNIST",
            data_set="mnist",
            initialisation="he_normal",
            **mnist,
        ),
        HeldOutResidualPerceptron(
            784,
            64,
            6,
            10,
            title="Residual perceptron on MNIST",
            data_set="mnist",
            initialisation="he_normal",
            **mnist,
        ),
        HeldOutAttention(
            28,
            28,
            32,
            10,
            4,
            blocks=2,
            positions=True,
            title="Attention over rows of MNIST",
            data_set="mnist_rows",
            activation="gelu",
            recorded_rows=2000,
        ),
        VariationalAutoencoder(
            784,
            200,
            VAE_LATENT,
            title="Variational autoencoder of MNIST",
            data_set="mnist_and_noise",
            **mnist,
        ),
        HeldOutGatedRecurrentNetwork(
            TEXT_WINDOW,
            TEXT_CHARACTERS,
            64,
            TEXT_CHARACTERS,
            title="Gated recurrent network on text",
            data_set="text",
            activation="tanh",
            recorded_rows=2000,
        ),
        HeldOutRegression(
            10,
            (48, 24),
            title="Regression of diabetes with heavy-tailed noise",
            data_set="diabetes",
            activation="tanh",
        ),
    ]
