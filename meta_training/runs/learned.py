"""Trained optimizers on stacked runs: each run is a problem of one packed layout."""

import math

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.half_precision import HALF_FIELDS
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.nominal_rate import Horizon
from meta_training.optimizers.base import TrainableOptimizer

# As in Keras's class the update goes in chunks of this many elements, so that what
# a chunk needs stays in the cache: with 86,000 parameters it takes half the time.
_CHUNK_ELEMENTS = 16_384
_BLOCK_SIZES = (4, 8, 16, 32, 64, 128, 256, 512)
# What the numbers of a block cost beside its elements, in elements: biases and sums.
_BLOCK_COST = 8


class LearnedRuns:
    """A trainable optimizer as an optimizer of runs, see `baselines`.

    Its `arguments` are

    - `meta_parameters`, their dict,
    - `log_learning_rate`, `[runs]`, the logarithm of each run's initial rate,
    - `log_scale`, `[runs, tensors]`, where tasks are rescaled: the optimizer sees each
      tensor multiplied by its exponential,
    - `total_steps`, `[runs]`, for an optimizer that takes a horizon; 0 for runs that do
      not know theirs.

    As with the Keras class, a tensor whose gradient is not finite is left as it is, and
    with `half_state` the hierarchical RNN keeps its state in bfloat16. `shapes` are
    those of the tensors of a run.
    """

    fresh_statistics = False

    def __init__(
        self, optimizer: TrainableOptimizer, shapes, runs: int, half_state=False
    ):
        self._half_state = half_state
        self.optimizer = optimizer
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.runs = runs
        counts = [math.prod(shape) for shape in self.shapes]
        block_size = _best_block_size(counts)
        self.layout = Layout.from_shapes(
            self.shapes * runs,
            block_size,
            _CHUNK_ELEMENTS // block_size,
            problems=np.repeat(np.arange(runs), len(self.shapes)),
        )
        self._padded = [math.ceil(count / block_size) * block_size for count in counts]
        self._counts = counts

    def start(self, values, arguments):
        rates = tf.gather(arguments["log_learning_rate"], self.layout.block_problem)
        state = self.optimizer.initial_state(
            self.layout,
            arguments["meta_parameters"],
            rates[:, tf.newaxis],
            self.pack(values) * self._scale(arguments),
        )
        state = type(state)(*(tf.convert_to_tensor(field) for field in state))
        if self._half_state:
            half = {n: tf.cast(getattr(state, n), tf.bfloat16) for n in HALF_FIELDS}
            state = state._replace(**half)
        return state, list(values)

    def gradient_values(self, values, state):
        return state[1]

    def evaluation_values(self, values, state):
        return values

    def step(self, values, gradients, state, iteration, arguments):
        options = {}
        if self.optimizer.takes_horizon and "total_steps" in arguments:
            options["horizon"] = Horizon(arguments["total_steps"], iteration)
        if self._half_state:
            options["rounding"] = iteration
        scale = self._scale(arguments)
        packed = self.pack(gradients) / scale
        is_finite = tf.reduce_all(tf.math.is_finite(packed), axis=1)
        bad_blocks = 1 - tf.cast(is_finite, tf.float32)
        bad_tensors = tf.math.unsorted_segment_sum(
            bad_blocks, self.layout.block_tensor, self.layout.num_tensors
        )
        active = tf.cast(tf.equal(bad_tensors, 0), tf.float32)
        step = self.optimizer.compute_step(
            packed,
            state[0],
            self.layout,
            arguments["meta_parameters"],
            active,
            **options,
        )
        new_values = self._subtract(values, step.step / scale)
        attended = new_values
        if step.attended_step is not None:
            attended = self._subtract(values, step.attended_step / scale)
        return new_values, (step.state, attended)

    def _scale(self, arguments):
        """`[blocks, 1]`, or 1: what the optimizer sees over what the task sees."""
        if "log_scale" not in arguments:
            return 1.0
        scales = tf.exp(tf.reshape(arguments["log_scale"], [-1]))
        return tf.gather(scales, self.layout.block_tensor)[:, tf.newaxis]

    def _subtract(self, values, step):
        changes = self.unpack(step)
        return [value - change for value, change in zip(values, changes, strict=True)]

    def pack(self, tensors):
        """`[runs, *shape]` tensors as `[blocks, block_size]`, run after run."""
        pieces = [
            tf.pad(
                tf.reshape(tensor, [self.runs, count]), [[0, 0], [0, padded - count]]
            )
            for tensor, count, padded in zip(
                tensors, self._counts, self._padded, strict=True
            )
        ]
        blocks = tf.reshape(tf.concat(pieces, axis=1), [-1, self.layout.block_size])
        missing = len(self.layout.block_tensor) - blocks.shape[0]
        return tf.pad(blocks, [[0, missing], [0, 0]])

    def unpack(self, packed):
        """The reverse of `pack`."""
        width = sum(self._padded)
        used = self.runs * width // self.layout.block_size
        rows = tf.reshape(packed[:used], [self.runs, width])
        tensors, start = [], 0
        for shape, count, padded in zip(
            self.shapes, self._counts, self._padded, strict=True
        ):
            piece = rows[:, start : start + count]
            tensors.append(tf.reshape(piece, [self.runs, *shape]))
            start += padded
        return tensors


def _best_block_size(counts) -> int:
    """The block size with the least padding and the fewest blocks, weighed."""

    def cost(block_size):
        blocks = sum(math.ceil(count / block_size) for count in counts)
        return blocks * (block_size + _BLOCK_COST)

    return min(_BLOCK_SIZES, key=cost)
