"""A cohort: one trajectory of every task, and the state of the estimator along them.

A run has one cohort or several, each with a separate seed. The windows of a cohort are
estimated independently of the others, so a distribution can divide cohorts among
devices. The result of a run depends on the number of its cohorts but not on where they
are computed: one device and many replicas reach the same meta-parameters.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.arrays import under_prefix, with_prefix
from meta_training.estimators import Estimate
from meta_training.inner.trajectories import Trajectories
from meta_training.inner.windows import Carry


class Report(NamedTuple):
    """The result of one window for the outer loop, as NumPy arrays.

    Those of `Carry`, `Window` and `Estimate` that have these names; and `num_steps`,
    scalar, how many there were; `first`, 1 in the first window of its cohort.
    """

    gradient: dict[str, np.ndarray]
    losses: np.ndarray
    weights: np.ndarray
    fresh: np.ndarray
    alive: np.ndarray
    initial_objective: np.ndarray
    mean_log_learning_rate: np.ndarray
    num_steps: np.ndarray
    first: np.ndarray

    def to_vector(self) -> np.ndarray:
        """All numbers as one float32 vector."""
        return np.concatenate(
            [np.ravel(part).astype(np.float32) for part in tf.nest.flatten(self)]
        )

    def from_vector(self, vector: np.ndarray) -> "Report":
        """The reverse of `to_vector`, for a report of the same shapes as this one."""
        parts = tf.nest.flatten(self)
        pieces = np.split(vector, np.cumsum([np.size(part) for part in parts])[:-1])
        shaped = [
            piece.reshape(np.shape(part))
            for piece, part in zip(pieces, parts, strict=True)
        ]
        return tf.nest.pack_sequence_as(self, shaped)


class WindowStart(NamedTuple):
    """The arguments of an estimator for a window, besides the meta-parameters.

    `carried` is the estimator's state after the last window; `num_steps` and `seed` are
    scalar int32 tensors.
    """

    carry: Carry
    carried: dict[str, Any]
    num_steps: Any
    seed: Any


def cohort_seed(seed: int, number: int) -> int:
    """The seed of a cohort; that of cohort 0 is the seed of the run."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


class Cohort:
    """One cohort between its windows, and during one."""

    def __init__(self, number: int, trajectories: Trajectories, carried):
        self.number = number
        self.trajectories = trajectories
        self.carried = carried
        self.windows = 0
        self._before: dict[str, np.ndarray] | None = None
        self._start: WindowStart | None = None

    def begin(self) -> WindowStart:
        """Starts the next window."""
        # A checkpoint may be written while a worker computes the window. It then holds
        # the start of the window, from which `advance` does the same again.
        self._before = {
            name: array.copy() for name, array in self.trajectories.state().items()
        }
        step = self.windows
        carry = self.trajectories.advance(step)
        self._start = WindowStart(
            carry,
            self.carried,
            tf.constant(self.trajectories.window_steps(step)),
            tf.constant(self.trajectories.unroll_seed(step)),
        )
        return self._start

    def end(self, estimate: Estimate) -> Report:
        """Takes over the state after the window."""
        window, carry = estimate.window, self._start.carry
        self.trajectories.take(window)
        self.carried = estimate.state
        report = Report(
            {name: np.array(value) for name, value in estimate.gradient.items()},
            np.array(window.losses),
            np.array(carry.weights),
            np.array(carry.fresh),
            np.array(window.alive),
            np.array(window.initial_objective),
            np.array(window.mean_log_learning_rate),
            np.array(self._start.num_steps),
            np.array(self.windows == 0),
        )
        self.windows += 1
        self._before = self._start = None
        return report

    def state(self) -> dict[str, np.ndarray]:
        """The state for a checkpoint, as named arrays.

        The names of cohort 0 are those of runs with one cohort.
        """
        return {
            name: np.array(array)
            for part, arrays in {
                "trajectories": self._before or self.trajectories.state(),
                "estimator": self.carried,
                "cohort": {"windows": self.windows},
            }.items()
            for name, array in with_prefix(self._prefix(part), arrays).items()
        }

    def restore(self, arrays: dict[str, np.ndarray], windows: int) -> None:
        """The reverse of `state`; `windows` are done, where arrays lack the number."""
        trajectories, carried, cohort = (
            under_prefix(self._prefix(part), arrays)
            for part in ("trajectories", "estimator", "cohort")
        )
        self.trajectories.restore(trajectories)
        self.carried = carried
        self.windows = int(cohort.get("windows", windows))

    def _prefix(self, part):
        return f"{part}/" if self.number == 0 else f"{part}_{self.number}/"
