"""Small recurrent, attention and embedding networks, on random sequences."""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_training.tasks.small_networks import layers, random_data
from meta_training.tasks.small_networks.networks import ClassifierNetwork

# Fewer tokens are multiplied by sums of products: matrix products of 8 tokens take six
# times as long, those of 28 half as long.
_TOKENS_OF_PRODUCTS = 16


@dataclasses.dataclass(frozen=True)
class RecurrentNetwork(ClassifierNetwork):
    """A simple recurrent network that classifies waves by its last state.

    h ← activation(x W + h U + b), from h = 0; U starts orthogonal.

    Attributes:
        steps, features: of the sequences.
        units: of the state.
        classes: of the sequences.
    """

    steps: int
    features: int
    units: int
    classes: int

    # How many vectors a step computes from the state and the input.
    parts = 1

    @property
    def parameter_shapes(self):
        outputs = self.parts * self.units
        return (
            (self.features, outputs),
            (self.units, outputs),
            (outputs,),
            (self.units, self.classes),
            (self.classes,),
        )

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        orthogonal, triangular = np.linalg.qr(generator.normal(size=(self.units,) * 2))
        start[1] = (orthogonal * np.sign(np.diag(triangular))).astype(np.float32)
        return start

    def sample_data(self, generator):
        return random_data.wave_sequences(
            generator, self.rows, self.steps, self.features, self.classes
        )

    def outputs(self, parameters, data, activate, batch_normalise):
        kernel, recurrent, bias, *readout = parameters
        inputs = layers.dense_of_sequences(data, kernel, bias)
        state = activate(inputs[0])
        for step in range(1, self.steps):
            state = activate(inputs[step] + tf.matmul(state, recurrent))
        return layers.dense(state, *readout)


@dataclasses.dataclass(frozen=True)
class AttentionNetwork(ClassifierNetwork):
    """Transformer blocks with layer normalisation before their parts, then a mean.

    Attributes:
        tokens, features: of the sets of tokens (`random_data.marked_tokens`).
        width: of the blocks; a multiple of `heads`.
        classes: of the marked token.
        heads: of attention. Defaults to 2.
        blocks: one behind the other. Defaults to 1.
        positions: whether a learned vector is added to each token, by its place.
            Defaults to False.
    """

    tokens: int
    features: int
    width: int
    classes: int
    heads: int = 2
    _: dataclasses.KW_ONLY
    blocks: int = 1
    positions: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads ({self.heads}). "
                f"Received: {self.width!r}"
            )

    @property
    def parameter_shapes(self):
        width = self.width
        normalisation = ((width,), (width,))
        block = (
            *normalisation,
            *layers.dense_shapes((width, 3 * width)),
            *layers.dense_shapes((width, width)),
            *normalisation,
            *layers.dense_shapes((width, 2 * width, width)),
        )
        return (
            *layers.dense_shapes((self.features, width)),
            *block * self.blocks,
            *layers.dense_shapes((width, self.classes)),
            *(((self.tokens, width),) if self.positions else ()),
        )

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        for block in range(self.blocks):
            for scale in (2, 8):
                start[12 * block + scale][...] = 1
        return start

    def sample_data(self, generator):
        return random_data.marked_tokens(
            generator, self.rows, self.tokens, self.features, self.classes
        )

    def outputs(self, parameters, data, activate, batch_normalise):
        remaining = iter(parameters)

        def pair():
            return next(remaining), next(remaining)

        rows = tf.shape(data)[1]
        # A layer acts on each token alone, so that rows and tokens are one axis to it.
        flat = tf.reshape(data, [-1, rows * self.tokens, self.features])
        stream = layers.dense(flat, *pair())
        if self.positions:
            stream += tf.tile(parameters[-1], [1, rows, 1])
        for _ in range(self.blocks):
            normalised = layers.layer_normalise(stream, *pair())
            attended = self._attend(layers.dense(normalised, *pair()), rows)
            stream += layers.dense(attended, *pair())
            normalised = layers.layer_normalise(stream, *pair())
            hidden = activate(layers.dense(normalised, *pair()))
            stream += layers.dense(hidden, *pair())
        tokens = tf.reshape(stream, [-1, rows, self.tokens, self.width])
        return layers.dense(tf.reduce_mean(tokens, axis=2), *pair())

    def _attend(self, projected, rows):
        """Softmax attention within each row of `[tasks, rows * tokens, 3 width]`."""
        size = self.width // self.heads
        shape = [-1, rows, self.tokens, 3, self.heads, size]
        parts = tf.transpose(tf.reshape(projected, shape), [3, 0, 1, 4, 2, 5])
        query, key, value = tf.unstack(parts)
        if self.tokens < _TOKENS_OF_PRODUCTS:
            pairs = query[..., tf.newaxis, :] * key[..., tf.newaxis, :, :]
            weights = tf.nn.softmax(tf.reduce_sum(pairs, axis=-1) / size**0.5)
            mixed = weights[..., tf.newaxis] * value[..., tf.newaxis, :, :]
            mixed = tf.reduce_sum(mixed, axis=-2)
        else:
            weights = tf.matmul(query, key, transpose_b=True) / size**0.5
            mixed = tf.matmul(tf.nn.softmax(weights), value)
        mixed = tf.transpose(mixed, [0, 1, 3, 2, 4])
        return tf.reshape(mixed, [-1, rows * self.tokens, self.width])


@dataclasses.dataclass(frozen=True)
class EmbeddingNetwork(ClassifierNetwork):
    """Embedded words, the mean of their vectors, a hidden and an output layer.

    Words follow Zipf's law (`random_data.word_bags`): most rows of the embedding have
    no gradient at most steps, and many are met a few times in a whole run.

    Attributes:
        vocabulary, words: different words, and words of a row.
        width, hidden: units of the embedding and of the hidden layer.
        classes: of the rows.
    """

    vocabulary: int
    words: int
    width: int
    hidden: int
    classes: int

    @property
    def parameter_shapes(self):
        sizes = (self.width, self.hidden, self.classes)
        return ((self.vocabulary, self.width), *layers.dense_shapes(sizes))

    def sample_data(self, generator):
        return random_data.word_bags(
            generator, self.rows, self.words, self.vocabulary, self.classes
        )

    def outputs(self, parameters, data, activate, batch_normalise):
        vectors = tf.reduce_mean(tf.gather(parameters[0], data, batch_dims=1), axis=2)
        return layers.perceptron(parameters[1:], vectors, activate)
