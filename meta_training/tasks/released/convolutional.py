"""The released convolutional network (`ConvNet`)."""

import dataclasses

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.released.classifier import ReleasedClassifier
from meta_training.tasks.small_networks import layers, random_data


@dataclasses.dataclass(frozen=True)
class ConvNet(ReleasedClassifier):
    """Convolutions without bias, stride 1 and SAME padding, then one dense layer.

    The start is N(0, 0.01^2) throughout. No released training set has one (its test
    problems do, on MNIST); here the data are random class patterns, shifted and
    noisy.

    Attributes:
        image_shape: channels, height, width, in the released order.
        filters: (kernel height, kernel width, filters) of each layer.
        classes: outputs. Defaults to 2.
        rows: images. Defaults to 256.
    """

    image_shape: tuple[int, int, int]
    filters: tuple[tuple[int, int, int], ...]
    classes: int = 2
    activation: str = setting("relu", "Of all.", choices=layers.ACTIVATIONS)
    rows: int = 256

    @property
    def parameter_shapes(self):
        channels, height, width = self.image_shape
        shapes = []
        for kernel_height, kernel_width, outputs in self.filters:
            shapes.append((kernel_height, kernel_width, channels, outputs))
            channels = outputs
        return (*shapes, (channels * height * width, self.classes), (self.classes,))

    def sample_instance(self, generator):
        channels, height, width = self.image_shape
        images, labels = random_data.pattern_images(
            generator, self.rows, (height, width, channels), self.classes
        )
        return {"data": images, "labels": labels}

    def sample_parameters(self, generator):
        return [
            generator.normal(0, 0.01, shape).astype(np.float32)
            for shape in self.parameter_shapes
        ]

    def logits(self, parameters, data):
        activation = layers.activation_function(self.activation)
        images = data
        for kernel in parameters[:-2]:
            images = activation(layers.convolve(images, kernel))
        kernel, bias = parameters[-2:]
        flat = tf.reshape(images, [-1, tf.shape(data)[1], kernel.shape[1]])
        return layers.dense(flat, kernel, bias)
