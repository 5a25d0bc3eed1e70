"""A window whose problems are divided among the cores of one device.

XLA runs the many small kernels of a window one after the other, so one program keeps
one core busy. Problems are independent of each other within a window. So each part of
them is a separate program here: TensorFlow compiles and runs the parts in parallel, and
the meta-gradient is the sum of theirs.
"""

import tensorflow as tf

from learned_optimizer.utils.arrays import under_prefix, with_prefix
from meta_training.estimators.base import Estimate, Estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.windows import Carry, InnerState, Window

# Odd, so that every part has a different seed.
_SEED_STEP = 0x5BD1E995


class InParts:
    """An estimator on each part of a batch, with the interface of one on all of it."""

    def __init__(
        self, estimator_class, batch: ProblemBatch, optimizer, options, **more
    ):
        """Prepares the inner loops."""
        batches, self._bounds = zip(*batch.parts(), strict=True)
        self.parts: list[Estimator] = [
            estimator_class(part, optimizer, options, **more) for part in batches
        ]
        self._compiled = [
            tf.function(part.estimate, jit_compile=True, autograph=False)
            for part in self.parts
        ]
        # The level of each array.
        inner = InnerState(
            "parameter",
            "parameter",
            optimizer.state_type(**optimizer.state_levels),
        )
        self._carry = Carry(inner, *["problem"] * 3, "parameter", "problem", ())
        self._window = Window(inner, *["problem"] * 5)

    def initial_state(self):
        """The states of all parts, each name behind its part's number."""
        return _numbered(part.initial_state() for part in self.parts)

    def estimate(self, meta_parameters, carry, state, num_steps, seed) -> Estimate:
        """Runs a window, see `Estimator.estimate`; its parts are compiled."""
        estimates = [
            compiled(
                meta_parameters,
                self._slice(carry, bounds),
                under_prefix(f"{number}/", state),
                num_steps,
                tf.bitwise.bitwise_xor(seed, number * _SEED_STEP & 0x7FFFFFFF),
            )
            for number, (compiled, bounds) in enumerate(
                zip(self._compiled, self._bounds, strict=True)
            )
        ]
        return Estimate(
            {
                name: tf.add_n([estimate.gradient[name] for estimate in estimates])
                for name in meta_parameters
            },
            self._join([estimate.window for estimate in estimates]),
            _numbered(estimate.state for estimate in estimates),
        )

    def _slice(self, carry: Carry, bounds) -> Carry:
        def rows(level, array):
            if level == "parameter":
                return array[..., bounds[level], :]
            return array[..., bounds[level]]

        arrays = carry._replace(instances=())
        part = tf.nest.map_structure(rows, self._carry, arrays)
        return part._replace(instances=list(carry.instances[bounds["group"]]))

    def _join(self, windows: list[Window]) -> Window:
        def joined(level, *arrays):
            return tf.concat(arrays, -2 if level == "parameter" else -1)

        return tf.nest.map_structure(joined, self._window, *windows)


def _numbered(states):
    joined = {}
    for number, state in enumerate(states):
        joined |= with_prefix(f"{number}/", state)
    return joined


def compiled_estimator(
    estimator_class, batch: ProblemBatch, optimizer, options, **more
):
    """An estimator for a batch, in its parts, and its `estimate`, compiled.

    Returns:
        The estimator and a `tf.function`.
    """
    if batch.num_parts > 1:
        estimator = InParts(estimator_class, batch, optimizer, options, **more)
    else:
        estimator = estimator_class(batch, optimizer, options, **more)
    # Without second thoughts of autograph: it would double the time of tracing.
    function = tf.function(
        estimator.estimate, jit_compile=batch.num_parts == 1, autograph=False
    )
    return estimator, function
