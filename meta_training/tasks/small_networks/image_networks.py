"""Small convolutional networks with strides or pooling, on procedural images."""

import dataclasses

import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.small_networks import layers, random_data
from meta_training.tasks.small_networks.networks import ClassifierNetwork

KERNEL_SIZE = 3


@dataclasses.dataclass(frozen=True)
class ImageNetwork(ClassifierNetwork):
    """3 x 3 convolutions, each halving the image, then a dense layer.

    Attributes:
        image_shape: height, width, channels.
        filters: of each convolution.
        classes: of the images.
        reduction: "stride", convolutions of stride 2 and a mean over what is left
            before the dense layer; or "pool", mean pooling by 2 and a dense layer on
            all pixels.
    """

    image_shape: tuple[int, int, int]
    filters: tuple[int, ...]
    classes: int
    reduction: str = setting("stride", "Of size.", choices=("stride", "pool"))
    source: str = setting("patterns", "Of images.", choices=random_data.IMAGE_SOURCES)

    numbers = (*ClassifierNetwork.numbers, "source")

    def __post_init__(self):
        super().__post_init__()
        halvings = 2 ** len(self.filters)
        if any(length % halvings for length in self.image_shape[:2]):
            raise ValueError(
                f"image height and width must be multiples of {halvings}, to be "
                f"halved by every convolution. Received: {self.image_shape!r}"
            )

    @property
    def parameter_shapes(self):
        height, width, channels = self.image_shape
        shapes = []
        for outputs in self.filters:
            shapes += [(KERNEL_SIZE, KERNEL_SIZE, channels, outputs), (outputs,)]
            height, width, channels = height // 2, width // 2, outputs
        inputs = channels * (height * width if self.reduction == "pool" else 1)
        return (*shapes, (inputs, self.classes), (self.classes,))

    def sample_data(self, generator):
        draw = random_data.IMAGE_SOURCES[self.source]
        return draw(generator, self.rows, self.image_shape, self.classes)

    def outputs(self, parameters, data, activate, batch_normalise):
        stride = 2 if self.reduction == "stride" else 1
        images = data
        for kernel, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            images = layers.convolve(images, kernel, stride)
            images = activate(images + bias[:, tf.newaxis, tf.newaxis, tf.newaxis, :])
            if self.reduction == "pool":
                images = layers.mean_pool(images, 2)
        kernel, bias = parameters[-2:]
        if self.reduction == "stride":
            features = tf.reduce_mean(images, axis=[2, 3])
        else:
            features = tf.reshape(images, [-1, tf.shape(data)[1], kernel.shape[1]])
        return layers.dense(features, kernel, bias)
