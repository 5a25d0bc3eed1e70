"""How many updates the whole training will make, where that is known."""

import types
import warnings

import keras
from keras import ops

from learned_optimizer.keras_step.arguments import checked_total_steps


class TotalSteps:
    """The part of `HierarchicalRNN` that keeps its `total_steps`."""

    def _init_total_steps(self, total_steps):
        self._given_total_steps = checked_total_steps(total_steps, self.config)
        # A plain object, which TensorFlow's checkpoints do not look into: those of
        # before have no such variable. `CheckpointConfig` holds the number there.
        self._horizon = types.SimpleNamespace(
            variable=None, total_steps=self._given_total_steps
        )

    @property
    def total_steps(self) -> int | None:
        """How many updates the whole training will make; None: not known.

        It may be set at any time.
        """
        return self._horizon.total_steps

    @total_steps.setter
    def total_steps(self, total_steps):
        total_steps = checked_total_steps(total_steps, self.config, self.updates_done)
        self._set_total_steps(total_steps)
        if total_steps:
            self._warn_of_a_schedule()

    @property
    def updates_done(self) -> int:
        """How many updates were made: `iterations` as a Python integer."""
        return int(ops.convert_to_numpy(self.iterations))

    def load_total_steps(self, total_steps):
        """Takes the number of a saved state, unless one was given to the optimizer."""
        if self._given_total_steps is None:
            self._set_total_steps(total_steps)

    def _set_total_steps(self, total_steps):
        self._horizon.total_steps = total_steps
        if self._horizon.variable is not None:
            self._horizon.variable.assign(total_steps or 0)

    def _warn_of_a_schedule(self):
        if isinstance(
            self._learning_rate, keras.optimizers.schedules.LearningRateSchedule
        ):
            warnings.warn(
                "`total_steps` lets the learned rates follow a schedule of their own. "
                "A schedule as `learning_rate` multiplies that, and falls twice. "
                f"Received: total_steps={self.total_steps} and {self._learning_rate}",
                stacklevel=3,
            )
