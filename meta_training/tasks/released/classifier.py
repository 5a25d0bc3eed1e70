"""What the classifiers of the released code have in common (`SoftmaxClassifier`)."""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from meta_training.tasks.base import Task
from meta_training.tasks.small_networks import layers

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
