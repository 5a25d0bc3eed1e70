"""The parts of small networks, batched over tasks.

Every tensor has a leading axis of tasks. The parts are made of matrix products,
slices and elementwise functions alone, which XLA compiles and differentiates twice
on every device.
"""

import math

import numpy as np
import tensorflow as tf

# An activation is (a + b x) σ(k x) + c + d relu(x), so that four of them are one
# computation with other numbers: the columns are k, a, b, c, d. The GELU is its
# sigmoid form x σ(1.702 x) (Hendrycks & Gimpel 2016).
ACTIVATIONS = {
    "relu": (1.0, 0.0, 0.0, 0.0, 1.0),
    "tanh": (2.0, 2.0, 0.0, -1.0, 0.0),
    "gelu": (1.702, 0.0, 1.0, 0.0, 0.0),
    "sigmoid": (1.0, 1.0, 0.0, 0.0, 0.0),
}

INITIALISATIONS = ("glorot_uniform", "he_normal", "lecun_normal")
# Of both normalisations, beside the variance, as in Keras.
EPSILON = 1e-3


def activation_coefficients(name: str) -> np.ndarray:
    """The `[5]` float32 numbers by which `activate` becomes the named activation."""
    return np.array(ACTIVATIONS[name], np.float32)


def activation_function(name: str):
    """The named activation alone, where all tasks of a key share it."""
    return {
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "gelu": lambda values: values * tf.sigmoid(ACTIVATIONS["gelu"][0] * values),
        "sigmoid": tf.sigmoid,
    }[name]


def activate(values: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """Applies to each task its own activation; `coefficients` is `[tasks, 5]`."""
    shape = [5, -1] + [1] * (values.shape.rank - 1)
    steepness, level, slope, offset, rectified = tf.unstack(
        tf.reshape(tf.transpose(coefficients), shape)
    )
    gate = tf.sigmoid(steepness * values)
    return (level + slope * values) * gate + offset + rectified * tf.nn.relu(values)


def initialise(
    shape: tuple[int, ...], initialisation: str, generator: np.random.Generator
) -> np.ndarray:
    """Draws a float32 kernel: inputs on the axes before the last, outputs on it.

    A vector (a bias) is zero. For a convolution kernel `[height, width, in, out]`
    the fan-in is height * width * in and the fan-out height * width * out.
    """
    if len(shape) < 2:
        return np.zeros(shape, np.float32)
    fan_in = math.prod(shape[:-1])
    fan_out = math.prod(shape[:-2]) * shape[-1]
    if initialisation == "glorot_uniform":
        limit = math.sqrt(6 / (fan_in + fan_out))
        return generator.uniform(-limit, limit, shape).astype(np.float32)
    variance = {"he_normal": 2, "lecun_normal": 1}[initialisation] / fan_in
    return generator.normal(0, math.sqrt(variance), shape).astype(np.float32)


def dense(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`[tasks, rows, in]` times `[tasks, in, out]` plus `[tasks, out]`."""
    return tf.matmul(inputs, kernel) + bias[:, tf.newaxis, :]


def dense_of_sequences(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor):
    """`dense` of `[tasks, rows, steps, in]`, as a list of `[tasks, rows, out]`.

    One product of all steps: XLA's sum over rows and steps, in the gradient of an
    `einsum`, takes ten times as long.
    """
    _, _, steps, features = inputs.shape
    rows = tf.shape(inputs)[1]
    found = dense(tf.reshape(inputs, [-1, rows * steps, features]), kernel, bias)
    return tf.unstack(tf.reshape(found, [-1, rows, steps, kernel.shape[-1]]), axis=2)


def perceptron(parameters, inputs: tf.Tensor, activate) -> tf.Tensor:
    """Dense layers, kernel and bias of each in turn, all but the last activated."""
    for first in range(0, len(parameters) - 2, 2):
        inputs = activate(dense(inputs, *parameters[first : first + 2]))
    return dense(inputs, *parameters[-2:])


def dense_shapes(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Kernel and bias shapes of the layers between successive `sizes`."""
    shapes = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        shapes += [(fan_in, fan_out), (fan_out,)]
    return tuple(shapes)


def layer_normalise(values, scale, offset) -> tf.Tensor:
    """Each row to mean 0 and variance 1, then times `scale` plus `offset`.

    `values` is `[tasks, rows, units]`, `scale` and `offset` are `[tasks, units]`.
    """
    centred = values - tf.reduce_mean(values, axis=2, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=2, keepdims=True)
    normalised = centred * tf.math.rsqrt(variance + EPSILON)
    return normalised * scale[:, tf.newaxis, :] + offset[:, tf.newaxis, :]


class BatchNormalisation:
    """Batch normalisation of several layers, as `keras.layers.BatchNormalization`.

    Called by one layer after the other. The statistics that each found are kept in
    `statistics`: means and variances, `[tasks, units]`.

    Args:
        averages: Means and variances to normalise by, in the same order. None: each
            layer normalises by those it finds.
    """

    def __init__(self, averages=None):
        self.statistics: list[tf.Tensor] = []
        self._averages = None if averages is None else iter(averages)

    def __call__(self, values, scale, offset) -> tf.Tensor:
        """Of `[tasks, rows, ..., units]`; `scale` and `offset` are `[tasks, units]`."""
        axes = list(range(1, values.shape.rank - 1))
        mean = tf.reduce_mean(values, axis=axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(values - mean), axis=axes, keepdims=True)
        self.statistics += [tf.squeeze(mean, axes), tf.squeeze(variance, axes)]

        def spread(vector):
            return tf.reshape(vector, tf.shape(mean))

        if self._averages is not None:
            mean = spread(next(self._averages))
            variance = spread(next(self._averages))
        normalised = (values - mean) * tf.math.rsqrt(variance + EPSILON)
        return normalised * spread(scale) + spread(offset)


def convolve(
    images: tf.Tensor, kernel: tf.Tensor, stride: int = 1, padding: str = "SAME"
) -> tf.Tensor:
    """Convolution of images with a separate kernel for each task.

    Whole rows of pixels are multiplied by a matrix that holds the kernel at each place
    of a row. Most of its elements are 0, and it still takes half the time of patches,
    pixel by pixel, whose copies cost more than the products. XLA's own convolution
    takes ten times as long where each task has its kernel.

    Args:
        images: `[tasks, rows, height, width, in]`.
        kernel: `[tasks, kernel height, kernel width, in, out]`.
        stride: of both axes. Defaults to 1.
        padding: "SAME" or "VALID", as in `tf.nn.conv2d`.

    Returns:
        `[tasks, rows, new height, new width, out]`; with SAME padding the new lengths
        are those of the images over the stride, rounded up.
    """
    _, kernel_height, kernel_width, channels, filters = kernel.shape
    width = images.shape[3]

    def places(length, size):
        """The new length, and the padding before and after."""
        if padding == "VALID":
            return (length - size) // stride + 1, 0, 0
        new_length = -(-length // stride)
        excess = max((new_length - 1) * stride + size - length, 0)
        return new_length, excess // 2, excess - excess // 2

    new_height, top, bottom = places(images.shape[2], kernel_height)
    new_width, left, _ = places(width, kernel_width)
    padded = tf.pad(images, [[0, 0], [0, 0], [top, bottom], [0, 0], [0, 0]])
    reach = (new_height - 1) * stride + 1
    pixels = tf.stack(
        [padded[:, :, y : y + reach : stride] for y in range(kernel_height)], axis=3
    )
    # Column x of the kernel lies on pixel p of a row for the output q.
    x, p, q = np.ogrid[:kernel_width, :width, :new_width]
    lies_on = (q * stride + x - left == p).astype(np.float32)
    placed = tf.matmul(
        lies_on.reshape(kernel_width, -1),
        tf.reshape(kernel, [-1, kernel_height, kernel_width, channels * filters]),
        transpose_a=True,
    )
    shape = [-1, kernel_height, width, new_width, channels, filters]
    matrix = tf.transpose(tf.reshape(placed, shape), [0, 1, 2, 4, 3, 5])
    length = kernel_height * width * channels
    rows = tf.shape(images)[1]
    product = tf.matmul(
        tf.reshape(pixels, [-1, rows * new_height, length]),
        tf.reshape(matrix, [-1, length, new_width * filters]),
    )
    return tf.reshape(product, [-1, rows, new_height, new_width, filters])


def as_pixels(data: tf.Tensor) -> tf.Tensor:
    """Bytes as numbers in [0, 1]; what is none of them as it is."""
    return tf.cast(data, tf.float32) / 255 if data.dtype == tf.uint8 else data


def mean_pool(images: tf.Tensor, size: int) -> tf.Tensor:
    """Means over `size` x `size` squares.

    `images` is `[tasks, rows, height, width, channels]`.
    """
    _, _, height, width, channels = images.shape
    rows = tf.shape(images)[1]
    squares = [-1, rows, height // size, size, width // size, size, channels]
    return tf.reduce_mean(tf.reshape(images, squares), axis=[3, 5])


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The `[tasks]` mean over rows of the softmax cross-entropy.

    `logits` is `[tasks, rows, classes]`, `labels` is `[tasks, rows]` int32.
    """
    chosen = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    log_likelihood = tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=-1)
    return -tf.reduce_mean(log_likelihood, axis=-1)


def fraction_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """`[tasks]` accuracy of the largest of `[tasks, rows, classes]` logits."""
    predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.reduce_mean(tf.cast(tf.equal(predicted, labels), tf.float32), axis=-1)
