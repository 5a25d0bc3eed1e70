"""Cohorts of trajectories: what the outer loop makes of their windows."""

import numpy as np
import pytest

from meta_training.distribution.cohort import cohort_seed
from meta_training.outer.meta_optimizers import MetaOptimizer
from meta_training.outer.trainer import Trainer
from tests.arrays import assert_close
from tests.meta_training.distribution.runs import tiny

OF_EQUAL_LENGTH = dict(min_window_steps=4, max_window_steps=4)


@pytest.mark.slow
def test_the_meta_gradient_is_the_mean_over_cohorts(tmp_path):
    seeds = [7, cohort_seed(7, 1)]
    assert seeds[0] != seeds[1]
    alone = []
    for seed in seeds:
        config = tiny(seed=seed, **OF_EQUAL_LENGTH)
        trainer = Trainer(config, tmp_path / str(seed))
        next_outcome = trainer.distribution.next_outcome
        ((report,), _) = next_outcome(trainer.meta_parameters)
        alone.append(report.gradient)
    config = tiny(seed=7, cohorts=2, **OF_EQUAL_LENGTH)
    trainer = Trainer(config, tmp_path / "both")
    start = dict(trainer.meta_parameters)
    trained = trainer.train(until=1)
    mean = {name: (alone[0][name] + alone[1][name]) / 2 for name in start}
    rate, bound = config.meta_learning_rate, config.clip_norm
    optimizer = MetaOptimizer("adam", rate, clip_norm=bound)
    state = optimizer.initial_state(start)
    expected, _ = optimizer.apply(start, optimizer.clip(mean), state, 0)
    assert_close(trained, expected, rtol=1e-6)
    assert all(np.any(alone[0][name] != alone[1][name]) for name in start)


def test_windows_are_equally_long(tmp_path):
    config = tiny(cohorts=2, max_window_steps=500, mean_window_steps=200.0)
    one, other = Trainer(config, tmp_path).cohorts
    lengths = [one.trajectories.window_steps(step) for step in range(9)]
    assert len(set(lengths)) > 5
    assert lengths == [other.trajectories.window_steps(step) for step in range(9)]
