"""Perceptrons for many classes, with and without normalisation, and regressions."""

import dataclasses

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.small_networks import layers, random_data
from meta_training.tasks.small_networks.networks import ClassifierNetwork, Network

_NORMALISATIONS = ("none", "batch", "layer")


@dataclasses.dataclass(frozen=True)
class Perceptron(ClassifierNetwork):
    """A multilayer perceptron on clusters or on the labels of a teacher network.

    Attributes:
        features, hidden_sizes, classes: units of the layers.
        normalisation: "none"; "batch", with the statistics of the minibatch; or
            "layer". With one, a hidden layer has a scale and an offset and no bias.
    """

    features: int
    hidden_sizes: tuple[int, ...]
    classes: int
    normalisation: str = setting("none", "Of all.", choices=_NORMALISATIONS)
    source: str = setting("mixture", "Of data.", choices=random_data.VECTOR_SOURCES)

    numbers = (*ClassifierNetwork.numbers, "source")

    @property
    def parameter_shapes(self):
        sizes = (self.features, *self.hidden_sizes, self.classes)
        shapes = layers.dense_shapes(sizes)
        if self.normalisation == "none":
            return shapes
        hidden = []
        for kernel, units in zip(shapes[:-2:2], shapes[1:-2:2], strict=True):
            hidden += [kernel, units, units]
        return (*hidden, *shapes[-2:])

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        if self.normalisation != "none":
            for scale in start[1:-2:3]:
                scale[...] = 1
        return start

    def sample_data(self, generator):
        draw = random_data.VECTOR_SOURCES[self.source]
        return draw(generator, self.rows, self.features, self.classes)

    @property
    def statistics_shapes(self):
        if self.normalisation != "batch":
            return ()
        return tuple((units,) for units in self.hidden_sizes for _ in range(2))

    def outputs(self, parameters, data, activate, batch_normalise):
        normalise = {"batch": batch_normalise, "layer": layers.layer_normalise}.get(
            self.normalisation
        )
        each = 3 if normalise else 2
        hidden = data
        for first in range(0, len(parameters) - 2, each):
            kernel, *others = parameters[first : first + each]
            if normalise:
                hidden = normalise(tf.matmul(hidden, kernel), *others)
            else:
                hidden = layers.dense(hidden, kernel, *others)
            hidden = activate(hidden)
        return layers.dense(hidden, *parameters[-2:])


@dataclasses.dataclass(frozen=True)
class Regression(Network):
    """A perceptron that fits the outputs of a random network by squared error.

    Attributes:
        features, hidden_sizes, outputs_count: units of the layers.
    """

    features: int
    hidden_sizes: tuple[int, ...]
    outputs_count: int = 1
    target_noise: float = setting(
        0.0, "Standard deviation of noise on the targets, whose own is 1.", at_least=0
    )

    numbers = (*Network.numbers, "target_noise")

    @property
    def parameter_shapes(self):
        return layers.dense_shapes(
            (self.features, *self.hidden_sizes, self.outputs_count)
        )

    def sample_data(self, generator):
        data, targets = random_data.teacher_outputs(
            generator, self.rows, self.features, self.outputs_count
        )
        noise = generator.normal(0, self.target_noise, targets.shape)
        return data, (targets + noise).astype(np.float32)

    def outputs(self, parameters, data, activate, batch_normalise):
        return layers.perceptron(parameters, data, activate)

    def loss(self, outputs, instance):
        error = outputs - instance["labels"]
        return tf.reduce_mean(tf.square(error), axis=[1, 2])


@dataclasses.dataclass(frozen=True)
class Autoencoder(Regression):
    """A `Regression` of points on a curved manifold onto themselves.

    `outputs_count` is `features`; `hidden_sizes` has a narrow layer in the middle,
    and `target_noise` makes it a denoising one.
    """

    def __post_init__(self):
        object.__setattr__(self, "outputs_count", self.features)
        super().__post_init__()

    def sample_data(self, generator):
        points = random_data.curved_manifold(generator, self.rows, self.features)
        noise = generator.normal(0, self.target_noise, points.shape)
        return (points + noise).astype(np.float32), points
