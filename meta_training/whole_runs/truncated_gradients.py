"""Truncated meta-gradients where a search stands: what guides its perturbations."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from meta_training.estimators import TruncatedBackpropagation, compiled_estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories
from meta_training.optimizers import TrainableOptimizer
from meta_training.outer.training_config import preset
from meta_training.tasks.base import Task


class TruncatedGradients:
    """One window of every task at a time, as the preset `default` trains."""

    def __init__(self, tasks: Sequence[Task], optimizer: TrainableOptimizer, seed: int):
        config = preset("default")
        batch = ProblemBatch(
            tasks,
            config.block_size,
            objective_rows=config.objective_rows,
            parts=config.parts,
        )
        self._trajectories = Trajectories(batch, optimizer, config.trajectories, seed)
        estimator, self._estimate = compiled_estimator(
            TruncatedBackpropagation, batch, optimizer, config.unroll
        )
        self._nothing = estimator.initial_state()

    def __call__(
        self, arrays: Mapping[str, np.ndarray], generation: int
    ) -> dict[str, np.ndarray]:
        """The gradient of the next window's loss, a dict like `arrays`."""
        trajectories = self._trajectories
        estimate = self._estimate(
            tf.nest.map_structure(tf.constant, dict(arrays)),
            trajectories.advance(generation),
            self._nothing,
            tf.constant(trajectories.window_steps(generation)),
            tf.constant(trajectories.unroll_seed(generation)),
        )
        trajectories.take(estimate.window)
        return {name: value.numpy() for name, value in estimate.gradient.items()}

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint needs."""
        return self._trajectories.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The reverse of `state`."""
        self._trajectories.restore(state)
