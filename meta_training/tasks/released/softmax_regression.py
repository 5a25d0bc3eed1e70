"""Softmax regressions: dense, sparse and one-hot sparse inputs, as released."""

import dataclasses

import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.released import datasets
from meta_training.tasks.released.classifier import ReleasedClassifier


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
        shape = (self.features, self.rows)
        kind = (self.classes, self.separation)
        if self.data_seed is None:
            random_state = datasets.legacy_random_state(generator)
            dataset = datasets.random_classification(*shape, random_state, *kind)
        else:
            dataset = datasets.seeded_classification(*shape, self.data_seed, *kind)
        return dataset._asdict()

    def logits(self, parameters, data):
        kernel, bias = parameters
        return tf.matmul(data, kernel) + bias[:, tf.newaxis, :]


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
        random_state = (
            datasets.legacy_random_state(generator)
            if self.data_seed is None
            else self.data_seed
        )
        return datasets.noisy_parity(
            self.rows, random_state, self.classes, self.context
        )._asdict()

    def logits(self, parameters, data):
        embeddings, kernel, bias = parameters
        summed = tf.reduce_sum(self.embed(embeddings, tf.cast(data, tf.int32)), axis=2)
        return tf.matmul(summed, kernel) + bias[:, tf.newaxis, :]

    def embed(self, embeddings, identifiers):
        """`[tasks, rows, context, features]` looked up by `[tasks, rows, context]`."""
        return tf.gather(embeddings, identifiers, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class OneHotSparseSoftmaxRegression(SparseSoftmaxRegression):
    """`SparseSoftmaxRegression` that multiplies one-hot rows and looks nothing up."""

    def embed(self, embeddings, identifiers):
        one_hot = tf.one_hot(identifiers, self.classes, dtype=embeddings.dtype)
        return tf.einsum("trnc,tcf->trnf", one_hot, embeddings)
