"""A tiny recurrent network and a tiny attention block, on random sequences."""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_training.tasks.base import require_positive_integers
from meta_training.tasks.small_networks import layers, random_data
from meta_training.tasks.small_networks.networks import ClassifierNetwork


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

    def __post_init__(self):
        super().__post_init__()
        require_positive_integers(
            "steps, features and units", self.steps, self.features, self.units
        )

    @property
    def parameter_shapes(self):
        return (
            (self.features, self.units),
            (self.units, self.units),
            (self.units,),
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
        del batch_normalise
        kernel, recurrent, bias, *readout = parameters
        inputs = tf.einsum("trsf,tfu->stru", data, kernel) + bias[:, tf.newaxis, :]
        state = activate(inputs[0])
        for step in range(1, self.steps):
            state = activate(inputs[step] + tf.matmul(state, recurrent))
        return layers.dense(state, *readout)


@dataclasses.dataclass(frozen=True)
class AttentionNetwork(ClassifierNetwork):
    """One transformer block with layer normalisation before its parts, then a mean.

    Attributes:
        tokens, features: of the sets of tokens (`random_data.marked_tokens`).
        width: of the block; a multiple of `heads`.
        classes: of the marked token.
        heads: of attention. Defaults to 2.
    """

    tokens: int
    features: int
    width: int
    classes: int
    heads: int = 2

    def __post_init__(self):
        super().__post_init__()
        require_positive_integers(
            "tokens, features, width and heads",
            self.tokens,
            self.features,
            self.width,
            self.heads,
        )
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads ({self.heads}), "
                f"received {self.width!r}"
            )

    @property
    def parameter_shapes(self):
        width = self.width
        normalisation = ((width,), (width,))
        return (
            *layers.dense_shapes((self.features, width)),
            *normalisation,
            *layers.dense_shapes((width, 3 * width)),
            *layers.dense_shapes((width, width)),
            *normalisation,
            *layers.dense_shapes((width, 2 * width, width)),
            *layers.dense_shapes((width, self.classes)),
        )

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        for scale in (start[2], start[8]):
            scale[...] = 1
        return start

    def sample_data(self, generator):
        return random_data.marked_tokens(
            generator, self.rows, self.tokens, self.features, self.classes
        )

    def outputs(self, parameters, data, activate, batch_normalise):
        del batch_normalise
        embedding, first, projection, merge, second, widen, narrow, readout = (
            parameters[start : start + 2] for start in range(0, len(parameters), 2)
        )
        rows = tf.shape(data)[1]
        # A layer acts on each token alone, so that rows and tokens are one axis to it.
        flat = tf.reshape(data, [-1, rows * self.tokens, self.features])
        stream = layers.dense(flat, *embedding)
        normalised = layers.layer_normalise(stream, *first)
        attended = self._attend(layers.dense(normalised, *projection), rows)
        stream += layers.dense(attended, *merge)
        normalised = layers.layer_normalise(stream, *second)
        hidden = activate(layers.dense(normalised, *widen))
        stream += layers.dense(hidden, *narrow)
        tokens = tf.reshape(stream, [-1, rows, self.tokens, self.width])
        return layers.dense(tf.reduce_mean(tokens, axis=2), *readout)

    def _attend(self, projected, rows):
        """Softmax attention within each row of `[tasks, rows * tokens, 3 width]`."""
        size = self.width // self.heads
        shape = [-1, rows, self.tokens, 3, self.heads, size]
        query, key, value = tf.unstack(tf.reshape(projected, shape), axis=3)
        # Sums of products: so many tiny matrix products would cost six times as much.
        pairs = query[:, :, :, tf.newaxis] * key[:, :, tf.newaxis]
        weights = tf.nn.softmax(tf.reduce_sum(pairs, axis=-1) / size**0.5, axis=3)
        mixed = tf.reduce_sum(
            weights[..., tf.newaxis] * value[:, :, tf.newaxis], axis=3
        )
        return tf.reshape(mixed, [-1, rows * self.tokens, self.width])
