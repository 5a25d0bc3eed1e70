"""A network small enough for tests, in the table of those that can be trained.

    python -m tests.imagenet.tiny --model=tiny ...

is `python -m imagenet.train` with that table.
"""

import keras

from imagenet.models import MODELS, ModelSpec


def network(inner, weights, classes, input_shape, classifier_activation):
    """These layers, and a dense one for the classes."""
    assert weights is None
    pooling = keras.layers.GlobalAveragePooling2D()
    dense = keras.layers.Dense(classes, activation=classifier_activation)
    return keras.Sequential([keras.Input(input_shape), *inner, pooling, dense])


def tiny(*arguments, **options):
    """Two convolutions and a dense layer, with batch normalization."""
    first = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)
    normalised = keras.layers.BatchNormalization(), keras.layers.ReLU()
    second = keras.layers.Conv2D(16, 3, strides=2, activation="relu")
    return network([first, *normalised, second], *arguments, **options)


def plain(*arguments, **options):
    """One convolution without normalization: the parts of a batch do not mix."""
    convolution = keras.layers.Conv2D(8, 3, strides=2, activation="relu")
    return network([convolution], *arguments, **options)


MODELS["tiny"] = ModelSpec(tiny, 32, 16)
MODELS["plain"] = ModelSpec(plain, 32, 16)

if __name__ == "__main__":
    from imagenet import train

    train.run()
