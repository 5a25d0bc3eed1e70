"""The sets `default`, which is `released` and small networks, and `default_networks`.

`default_networks` holds the networks alone; the weights that ship were trained on it.
`deep_networks` adds residual ones, `broad_networks` wide and very deep ones, attention
in blocks, and embeddings.

The networks are here for generalisation: without them the
released set teaches nothing of fan-in scaled weights, many classes or minibatches.
A row of the tables below is one `batch_key`, a computation to be compiled; its tasks
differ in activation, initialisation, data and noise.
"""

import dataclasses

from meta_training.tasks.base import register_task_set
from meta_training.tasks.released.classifiers import SoftmaxRegression
from meta_training.tasks.released.released_sets import released
from meta_training.tasks.small_networks.image_networks import ImageNetwork
from meta_training.tasks.small_networks.perceptrons import (
    Autoencoder,
    Perceptron,
    Regression,
)
from meta_training.tasks.small_networks.residual_networks import (
    ResidualImageNetwork,
    ResidualPerceptron,
)
from meta_training.tasks.small_networks.sequence_networks import (
    AttentionNetwork,
    EmbeddingNetwork,
    RecurrentNetwork,
)

# (features, hidden sizes, classes, batch size)
_PERCEPTRONS = (
    (10, (16,), 3, 16),
    (16, (20, 12), 5, 32),
    (12, (24, 16, 16), 10, 64),
    (8, (12, 12, 12, 12), 4, 32),
    (20, (32,), 10, 128),
)

_VARIANTS = (
    {"activation": "relu", "initialisation": "he_normal"},
    {"activation": "relu", "initialisation": "glorot_uniform", "source": "teacher"},
    {"activation": "tanh", "initialisation": "lecun_normal", "source": "teacher"},
    {"activation": "gelu", "initialisation": "glorot_uniform", "label_noise": 0.1},
    {"activation": "sigmoid", "initialisation": "glorot_uniform"},
)


def perceptrons() -> list[Perceptron]:
    """Five shapes, one to four hidden layers, 3 to 10 classes; some noisy labels."""
    return [
        Perceptron(features, hidden, classes, batch_size=batch_size, **variant)
        for features, hidden, classes, batch_size in _PERCEPTRONS
        for variant in _VARIANTS
    ]


def normalised_perceptrons() -> list[Perceptron]:
    """Batch and layer normalisation."""
    return [
        Perceptron(*shape, **variant)
        for shape in ((12, (16, 16), 5, "batch"), (16, (24, 24), 6, "layer"))
        for variant in _VARIANTS[1:4]
    ]


def image_networks() -> list[ImageNetwork]:
    """Strides on 12 x 12 images, pooling on 8 x 8 images."""
    variants = (
        {"activation": "relu", "initialisation": "he_normal"},
        {"activation": "relu", "initialisation": "glorot_uniform"},
        {"activation": "gelu", "source": "gratings"},
        {"activation": "tanh", "source": "gratings", "label_noise": 0.1},
    )
    return [
        network
        for variant in variants
        for network in (
            ImageNetwork((12, 12, 1), (6, 10), 5, "stride", batch_size=16, **variant),
            ImageNetwork((8, 8, 1), (4, 8), 8, "pool", batch_size=16, **variant),
        )
    ]


def regressions() -> list[Regression]:
    """Fits of a teacher network, exact and noisy, and autoencoders."""
    fits = [
        Regression(10, (16, 16), 2, noise, activation=activation)
        for activation, noise in (("relu", 0.0), ("tanh", 0.0), ("gelu", 0.3))
    ]
    return fits + [
        Autoencoder(16, (20, 4, 20), target_noise=noise, activation=activation)
        for activation, noise in (("relu", 0.0), ("tanh", 0.0), ("gelu", 0.2))
    ]


def sequence_networks() -> list[RecurrentNetwork | AttentionNetwork]:
    """A recurrent network and an attention block."""
    return [
        RecurrentNetwork(6, 4, 12, 4, activation="tanh"),
        RecurrentNetwork(6, 4, 12, 4, activation="gelu"),
        RecurrentNetwork(6, 4, 12, 4, activation="tanh", label_noise=0.1),
        AttentionNetwork(5, 6, 8, 4, activation="gelu"),
        AttentionNetwork(5, 6, 8, 4, activation="relu"),
    ]


@register_task_set("residual_networks")
def residual_networks() -> list[ResidualPerceptron | ResidualImageNetwork]:
    """Nine to 25 layers with batch normalisation, on vectors and on images."""
    variants = (
        {"activation": "relu", "initialisation": "he_normal"},
        {"activation": "relu", "initialisation": "glorot_uniform"},
        {"activation": "gelu", "initialisation": "glorot_uniform", "label_noise": 0.1},
    )
    return [
        network
        for variant in variants
        for network in (
            ResidualPerceptron(16, 16, 4, 10, **variant),
            ResidualPerceptron(12, 8, 12, 6, source="teacher", **variant),
            ResidualImageNetwork((8, 8, 1), (5, 8), 2, 8, batch_size=16, **variant),
        )
    ]


@register_task_set("default_networks")
def default_networks():
    """What `default` has beyond `released`."""
    return [
        *perceptrons(),
        *normalised_perceptrons(),
        *image_networks(),
        *regressions(),
        *sequence_networks(),
    ]


@register_task_set("deep_networks")
def deep_networks():
    """`default_networks` and residual ones."""
    return default_networks() + residual_networks()


@register_task_set("broad_networks")
def broad_networks():
    """`deep_networks`, and what is wider, deeper, noisier, or has rare rows."""
    variants = (
        {"activation": "relu", "initialisation": "he_normal"},
        {"activation": "gelu", "initialisation": "glorot_uniform", "label_noise": 0.2},
    )
    networks = [
        network
        for variant in variants
        for network in (
            Perceptron(16, (256, 128), 10, "batch", source="teacher", **variant),
            ResidualPerceptron(24, 8, 32, 10, **variant),
            ResidualPerceptron(20, 96, 3, 8, source="teacher", **variant),
            ResidualImageNetwork(
                (8, 8, 3), (8, 16, 32), 1, 10, batch_size=16, **variant
            ),
            ResidualImageNetwork((8, 8, 1), (8, 12), 2, 6, batch_size=16, **variant),
            AttentionNetwork(8, 6, 16, 6, blocks=2, positions=True, **variant),
            EmbeddingNetwork(400, 12, 16, 24, 6, **variant),
            EmbeddingNetwork(1500, 20, 12, 32, 4, **variant),
        )
    ]
    return deep_networks() + networks


@register_task_set("default")
def default():
    """`released`, its fixed data sets drawn anew for each instance, and networks."""
    fresh = [
        dataclasses.replace(task, data_seed=None)
        if isinstance(task, SoftmaxRegression)
        else task
        for task in released()
    ]
    return fresh + default_networks()
