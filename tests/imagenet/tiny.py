"""A network small enough for tests, in the table of those that can be trained.

    python -m tests.imagenet.tiny --model=tiny ...

is `python -m imagenet.train` with that table.
"""

import keras

from imagenet.models import MODELS, ModelSpec


def tiny(weights, classes, input_shape, classifier_activation):
    """Two convolutions and a dense layer, with batch normalization."""
    assert weights is None
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(8, 3, strides=2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation=classifier_activation),
        ]
    )


def plain(weights, classes, input_shape, classifier_activation):
    """The same without batch normalization: the parts of a batch do not mix."""
    assert weights is None
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation=classifier_activation),
        ]
    )


MODELS["tiny"] = ModelSpec(tiny, 32, 16)
MODELS["plain"] = ModelSpec(plain, 32, 16)

if __name__ == "__main__":
    from imagenet import train

    train.run()
