"""The classifiers of the released code: linear ones and networks."""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.base import Task
from meta_training.tasks.released import datasets
from meta_training.tasks.small_networks import layers, random_data

REGULARISATION = 1e-3


@dataclasses.dataclass(frozen=True)
class ReleasedClassifier(Task):
    """Cross-entropy plus a penalty, 1e-3 times the mean over tensors of |tensor|^2.

    With two classes the released loss reads the first logit alone, as the logit of
    class *one*; the second logit feels only the penalty. Its accuracy took the
    largest logit instead and so came out inverted: `accuracy` here follows the
    loss. With more classes, where the released code refuses, the loss is the softmax
    cross-entropy.

    Instances hold `data`, `[rows, ...]`, and `labels`, `[rows]`.
    """

    row_arrays: ClassVar[tuple[str, ...]] = ("data", "labels")

    @abc.abstractmethod
    def logits(self, parameters, data: tf.Tensor) -> tf.Tensor:
        """The `[tasks, rows, classes]` outputs of the network."""

    def sample_parameters(self, generator):
        """N(0, 1.2^2 / first dimension), biases too, as released."""
        return [
            tensor * np.float32(1.2 / math.sqrt(tensor.shape[0]))
            for tensor in super().sample_parameters(generator)
        ]

    def objective(self, parameters, instance):
        logits, labels = self.logits(parameters, instance["data"]), instance["labels"]
        if logits.shape[-1] == 2:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(
                labels=tf.cast(labels, logits.dtype), logits=logits[:, :, 0]
            )
            loss = tf.reduce_mean(losses, axis=-1)
        else:
            loss = layers.cross_entropy(logits, labels)
        squares = [
            tf.reduce_sum(tf.square(tensor), axis=range(1, tensor.shape.rank))
            for tensor in parameters
        ]
        return loss + REGULARISATION * tf.add_n(squares) / len(squares)

    def accuracy(self, parameters, instance) -> tf.Tensor:
        """The `[tasks]` fraction of rows that are classified correctly."""
        logits, labels = self.logits(parameters, instance["data"]), instance["labels"]
        if logits.shape[-1] == 2:
            first = logits[:, :, 0]
            logits = tf.stack([tf.zeros_like(first), first], axis=-1)
        return layers.fraction_correct(logits, labels)


@dataclasses.dataclass(frozen=True)
class SoftmaxRegression(ReleasedClassifier):
    """A linear classifier on the clustered data of `datasets.random_classification`.

    Attributes:
        features, classes: the kernel is `[features, classes]`, the bias `[classes]`.
        rows: rows of data. Defaults to 1,000.
        data_seed: where given, every instance has this one data set, as in the
            released problem sets; None draws one for each instance.
    """

    features: int
    classes: int = 2
    _: dataclasses.KW_ONLY
    rows: int = 1000
    separation: float = setting(1.0, "Of the clusters' centres.", above=0)
    data_seed: int | None = None

    numbers = ("separation", "data_seed")

    @property
    def parameter_shapes(self):
        return ((self.features, self.classes), (self.classes,))

    def sample_instance(self, generator):
        random_state = datasets.legacy_random_state(generator, self.data_seed)
        shape, kind = (self.features, self.rows), (self.classes, self.separation)
        return datasets.random_classification(*shape, random_state, *kind)._asdict()

    def logits(self, parameters, data):
        return layers.dense(data, *parameters)


@dataclasses.dataclass(frozen=True)
class SparseSoftmaxRegression(ReleasedClassifier):
    """A linear classifier on a sum of embeddings, of rows of `context` class numbers.

    The data are `datasets.noisy_parity`. Parameters: the embeddings
    `[classes, features]`, the kernel `[features, classes]`, the bias `[classes]`.

    Attributes:
        features: width of the embeddings.
        classes: of labels, and of the numbers in a row.
        rows, context: rows of data, and numbers in a row. Both default to 5.
        data_seed: as for `SoftmaxRegression`.
    """

    features: int
    classes: int = 2
    _: dataclasses.KW_ONLY
    rows: int = 5
    context: int = 5
    data_seed: int | None = None

    numbers = ("data_seed",)

    @property
    def parameter_shapes(self):
        kernel = (self.features, self.classes)
        return (kernel[::-1], kernel, (self.classes,))

    def sample_instance(self, generator):
        random_state = datasets.legacy_random_state(generator, self.data_seed)
        kind = (self.classes, self.context)
        return datasets.noisy_parity(self.rows, random_state, *kind)._asdict()

    def logits(self, parameters, data):
        embeddings, kernel, bias = parameters
        summed = tf.reduce_sum(self.embed(embeddings, tf.cast(data, tf.int32)), axis=2)
        return layers.dense(summed, kernel, bias)

    def embed(self, embeddings, identifiers):
        """`[tasks, rows, context, features]` looked up by `[tasks, rows, context]`."""
        return tf.gather(embeddings, identifiers, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class OneHotSparseSoftmaxRegression(SparseSoftmaxRegression):
    """`SparseSoftmaxRegression` that multiplies one-hot rows and looks nothing up."""

    def embed(self, embeddings, identifiers):
        one_hot = tf.one_hot(identifiers, self.classes, dtype=embeddings.dtype)
        return tf.einsum("trnc,tcf->trnf", one_hot, embeddings)


@dataclasses.dataclass(frozen=True)
class FullyConnected(ReleasedClassifier):
    """A perceptron on N(0, 1) data labelled by a random network, as released.

    The start is N(0, 1.2^2 / first dimension) for kernels and biases alike, and the
    activation of the released sets is the sigmoid. Two classes are labelled by
    `datasets.random_mlp`, more by `datasets.random_classification`.

    Attributes:
        features: columns of the data.
        hidden_sizes: units of each hidden layer.
        classes: outputs. Defaults to 2.
        rows: rows of data. Defaults to 1,000.
    """

    features: int
    hidden_sizes: tuple[int, ...]
    classes: int = 2
    activation: str = setting("sigmoid", "Of all.", choices=layers.ACTIVATIONS)
    rows: int = 1000

    @property
    def parameter_shapes(self):
        sizes = (self.features, *self.hidden_sizes, self.classes)
        return layers.dense_shapes(sizes)

    def sample_instance(self, generator):
        random_state = datasets.legacy_random_state(generator)
        shape = (self.features, self.rows)
        if self.classes == 2:
            dataset = datasets.random_mlp(*shape, random_state)
        else:
            dataset = datasets.random_classification(*shape, random_state, self.classes)
        return dataset._asdict()

    def logits(self, parameters, data):
        activation = layers.activation_function(self.activation)
        return layers.perceptron(parameters, data, activation)


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
