"""A window whose problems are divided among the cores of one device.

XLA runs the many small kernels of a window one after the other, so one program keeps
one core busy. Problems are independent of each other within a window. So each part of
them is a separate program here: TensorFlow compiles and runs the parts in parallel, and
the meta-gradient is the sum of theirs.
"""

import tensorflow as tf

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
        self._levels = optimizer.state_levels
        self._bounds = batch.part_bounds()
        self.parts: list[Estimator] = [
            estimator_class(batch.part(number), optimizer, options, **more)
            for number in range(batch.num_parts)
        ]
        self._compiled = [
            tf.function(part.estimate, jit_compile=True, autograph=False)
            for part in self.parts
        ]

    def initial_state(self):
        """The states of all parts, each name behind its part's number."""
        return {
            f"{number}/{name}": array
            for number, part in enumerate(self.parts)
            for name, array in part.initial_state().items()
        }

    def estimate(self, meta_parameters, carry, state, num_steps, seed) -> Estimate:
        """Runs a window, see `Estimator.estimate`; its parts are compiled."""
        estimates = []
        for number, (compiled, bounds) in enumerate(
            zip(self._compiled, self._bounds, strict=True)
        ):
            prefix = f"{number}/"
            own_state = {
                name.removeprefix(prefix): array
                for name, array in state.items()
                if name.startswith(prefix)
            }
            own_seed = tf.bitwise.bitwise_xor(seed, number * _SEED_STEP & 0x7FFFFFFF)
            estimates.append(
                compiled(
                    meta_parameters,
                    self._slice(carry, bounds),
                    own_state,
                    num_steps,
                    own_seed,
                )
            )
        return Estimate(
            {
                name: tf.add_n([estimate.gradient[name] for estimate in estimates])
                for name in meta_parameters
            },
            self._join([estimate.window for estimate in estimates]),
            {
                f"{number}/{name}": array
                for number, estimate in enumerate(estimates)
                for name, array in estimate.state.items()
            },
        )

    def _slice(self, carry: Carry, bounds) -> Carry:
        rows = {
            "parameter": bounds.blocks,
            "tensor": bounds.tensors,
            "problem": bounds.problems,
        }
        inner = carry.inner
        fields = [
            field[:, rows[level]] if level == "parameter" else field[..., rows[level]]
            for field, level in self._with_levels(inner.state)
        ]
        return Carry(
            inner=InnerState(
                inner.values[bounds.blocks],
                inner.attended_values[bounds.blocks],
                type(inner.state)(*fields),
            ),
            fresh=carry.fresh[bounds.problems],
            alive=carry.alive[bounds.problems],
            initial_objective=carry.initial_objective[bounds.problems],
            inverse_scale=carry.inverse_scale[bounds.blocks],
            weights=carry.weights[bounds.problems],
            instances=list(carry.instances[bounds.groups]),
        )

    def _join(self, windows: list[Window]) -> Window:
        def joined(arrays, axis=0):
            return tf.concat(list(arrays), axis=axis)

        states = [window.inner.state for window in windows]
        fields = [
            joined(parts, 1 if level == "parameter" else -1)
            for parts, level in zip(
                zip(*states, strict=True),
                (level for _, level in self._with_levels(states[0])),
                strict=True,
            )
        ]
        return Window(
            inner=InnerState(
                joined(window.inner.values for window in windows),
                joined(window.inner.attended_values for window in windows),
                type(states[0])(*fields),
            ),
            alive=joined(window.alive for window in windows),
            initial_objective=joined(window.initial_objective for window in windows),
            objectives=joined((window.objectives for window in windows), 1),
            losses=joined(window.losses for window in windows),
            mean_log_learning_rate=joined(
                window.mean_log_learning_rate for window in windows
            ),
        )

    def _with_levels(self, state):
        """`(field, level)` of each field of a state."""
        for name, field in state._asdict().items():
            yield field, self._levels[name]


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
