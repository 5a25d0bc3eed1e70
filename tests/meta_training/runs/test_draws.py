"""Draws: they depend on task and seed alone; epochs are shuffled; records."""

import numpy as np
import pytest

from meta_training.runs import draw_runs, record_steps
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from tests.meta_training.runs.step_by_step import NETWORK, STEPS


def test_draws_depend_on_task_and_seed_alone():
    alone = draw_runs([Quadratic(4, noise_stdev=0.5)], [7], 3)
    among = draw_runs([Quadratic(4), Quadratic(4, noise_stdev=0.5)], [2, 7], 3)
    np.testing.assert_array_equal(among.start[0][3], alone.start[0][0])
    assert np.any(among.start[0][2] != alone.start[0][0])
    np.testing.assert_array_equal(among.per_draw("noise_stdev"), [0, 0, 0.5, 0.5])


def test_minibatches_are_shuffled_epochs():
    draws = draw_runs([NETWORK], [3, 4], STEPS)
    epoch = draws.row_indices[:6, 0].ravel()
    assert len(set(epoch)) == 48 and draws.row_indices.shape == (STEPS, 2, 8)
    assert len(set(draws.row_indices[6:12, 0].ravel())) == 48
    assert np.any(draws.row_indices[:6, 0] != draws.row_indices[6:12, 0])


def test_record_steps():
    np.testing.assert_array_equal(record_steps(10, 5, every=4), [0, 4, 8, 10])
    even = [0, 111, 222, 333, 444, 556, 667, 778, 889, 1000]
    by_logarithm = [1, 2, 5, 10, 22, 46, 100, 215, 464, 1000]
    found = record_steps(1000, 20)
    np.testing.assert_array_equal(found, sorted({*even, *by_logarithm}))


def test_tasks_drawn_together_have_one_batch_key():
    with pytest.raises(ValueError, match="one batch_key"):
        draw_runs([Bowl(1.0), Quadratic(3)], [0], 1)
