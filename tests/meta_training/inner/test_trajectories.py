"""How trajectories start, go on and end: each option against its own distribution.

Seeds are fixed and samples large, so a bound of some percent is many standard errors
from what the option would give if it did nothing.
"""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.optimizers import HierarchicalRule
from meta_training.tasks.base import Task
from tests.arrays import assert_close
from tests.meta_training.outer.tiny_runs import windows_of

WINDOW = windows_of(10)
ENDLESS = dict(mean_horizon=1e9)
UNIFORM_STDEV = 1 / math.sqrt(12)


@dataclasses.dataclass(frozen=True)
class Pair(Task):
    """The squares of two tensors, nine elements in all, which fill blocks of three."""

    parameter_shapes = ((2, 3), (3,))

    def objective(self, parameters, instance):
        first, second = parameters
        return tf.reduce_sum(first**2, [1, 2]) + tf.reduce_sum(second**2, 1)


@dataclasses.dataclass(frozen=True)
class Shrinking(Pair):
    """Its parameters are not of the shapes that it says."""

    def sample_parameters(self, generator):
        return [np.ones((2, 3), np.float32), np.ones((2,), np.float32)]


def make(tasks=1, **options):
    """Trajectories of pairs."""
    batch = ProblemBatch([Pair()] * tasks, 3)
    return Trajectories(batch, HierarchicalRule(), TrajectoryConfig(**options), 0)


def log_rates(trajectories):
    """`[tasks, 9]` log learning rates: six of the first tensor, three of the other."""
    rates = trajectories.inner.state.log_learning_rate[0]
    tasks = range(len(trajectories.batch.tasks))
    blocks = [trajectories._blocks(task)[0] for task in tasks]
    return np.stack([np.concatenate([np.ravel(rates[b]) for b in bs]) for bs in blocks])


def test_windows_have_the_least_length_and_an_exponential_number():
    def lengths(least, mean, longest):
        names = ("min_window_steps", "mean_window_steps", "max_window_steps")
        made = make(**dict(zip(names, (least, mean, longest), strict=True)))
        return np.array([made.window_steps(step) for step in range(4000)])

    steps = lengths(50, 150, 10**6)
    assert steps.min() >= 50
    assert steps.mean() == pytest.approx(150, rel=0.05)
    # Of an exponential number the standard deviation is the mean, 100 here.
    assert steps.std() == pytest.approx(100, rel=0.1)
    assert np.median(steps) == pytest.approx(50 + 100 * math.log(2), rel=0.05)
    steps = lengths(50, 150, 300)
    assert steps.max() == 300
    assert np.mean(steps == 300) == pytest.approx(math.exp(-2.5), rel=0.2)
    assert set(lengths(10, 10, 10)) == {10}


def test_the_horizon_is_exponential():
    trajectories = make(mean_horizon=400.0, **WINDOW)
    horizons = [trajectories.draw_start(0, step).horizon for step in range(3000)]
    assert min(horizons) >= 1
    assert np.mean(horizons) == pytest.approx(400, rel=0.06)
    assert np.std(horizons) == pytest.approx(400, rel=0.1)
    assert np.median(horizons) == pytest.approx(400 * math.log(2), rel=0.08)


def test_a_trajectory_ends_with_the_window_that_reaches_it():
    trajectories = make(tasks=3, mean_horizon=25.0, **WINDOW)
    due = np.zeros(3, int)
    seen = 0
    for step in range(40):
        fresh = trajectories.advance(step).fresh
        np.testing.assert_array_equal(fresh, due == step)
        for task in np.flatnonzero(fresh):
            horizon = trajectories.draw_start(task, step).horizon
            due[task] = step + math.ceil(horizon / 10)
            seen += due[task] > step + 1
    assert seen > 5


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_rates_are_drawn_anew_as_often_as_the_option_says(probability):
    options = WINDOW | ENDLESS
    trajectories = make(tasks=100, redraw_probability=probability, **options)
    trajectories.advance(0)
    values = trajectories.inner.values.copy()
    before = log_rates(trajectories)
    redrawn = []
    for step in range(1, 11):
        carry = trajectories.advance(step)
        assert not carry.fresh.any()
        rates = log_rates(trajectories)
        changed = rates != before
        # All of a task's rates, or none.
        np.testing.assert_array_equal(changed.any(axis=1), changed.all(axis=1))
        redrawn.append(changed.any(axis=1))
        before = rates
    np.testing.assert_array_equal(trajectories.inner.values, values)
    if probability in (0, 1):
        assert np.all(np.array(redrawn) == bool(probability))
    else:
        assert np.mean(redrawn) == pytest.approx(probability, abs=0.05)
        # Each task draws for itself, at each window anew.
        assert 0 < np.mean(redrawn, axis=1).std() < 0.15
        assert len(np.unique(redrawn, axis=0)) == 10


RANGE = dict(low_learning_rate=1e-6, high_learning_rate=1e-2)
SPAN = math.log(1e4)


@pytest.mark.parametrize("windows", [1, 2], ids=["at the start", "drawn anew"])
def test_without_a_spread_over_elements_a_task_has_one_rate(windows):
    options = dict(spread_over_elements=False, redraw_probability=1.0)
    trajectories = make(tasks=300, **options, **RANGE, **WINDOW, **ENDLESS)
    for window in range(windows):
        trajectories.advance(window)
    rates = log_rates(trajectories)
    np.testing.assert_array_equal(rates, np.tile(rates[:, :1], 9))
    assert np.log(1e-6) <= rates.min() and rates.max() <= np.log(1e-2)
    assert rates.mean() == pytest.approx(np.log(1e-4), abs=0.08 * SPAN)
    assert rates[:, 0].std() == pytest.approx(SPAN * UNIFORM_STDEV, rel=0.1)


def test_with_it_half_of_the_range_is_drawn_for_each_element():
    trajectories = make(tasks=300, spread_over_elements=True, **RANGE, **WINDOW)
    trajectories.advance(0)
    rates = log_rates(trajectories)
    half = 0.5 * SPAN * UNIFORM_STDEV
    for tensor in (rates[:, :6], rates[:, 6:]):
        within = np.sqrt(tensor.var(axis=1, ddof=1).mean())
        assert within == pytest.approx(half, rel=0.1)
        assert np.ptp(tensor, axis=1).max() <= 0.5 * SPAN
    # The other half is drawn for each tensor: its means differ within a task, by
    # the difference of two such halves and little more.
    apart = rates[:, :6].mean(axis=1) - rates[:, 6:].mean(axis=1)
    wanted = half * math.sqrt(2 + 1 / 6 + 1 / 3)
    assert apart.std() == pytest.approx(wanted, rel=0.15)


def drawn(trajectories):
    starts = (trajectories.draw_start(0, step) for step in range(2000))
    return np.array([start.log_scale for start in starts])


def test_a_scale_range_multiplies_all_tensors_of_a_task_alike():
    scales = drawn(make(scale_range=100.0, **WINDOW))
    np.testing.assert_array_equal(scales[:, 0], scales[:, 1])
    bound = math.log(100.0)
    assert -bound <= scales.min() and scales.max() <= bound
    assert scales.mean() == pytest.approx(0, abs=0.05 * bound)
    assert scales.std() == pytest.approx(2 * bound * UNIFORM_STDEV, rel=0.05)


def test_a_scale_jitter_differs_from_tensor_to_tensor():
    scales = drawn(make(scale_jitter=0.5, **WINDOW))
    np.testing.assert_allclose(scales.std(axis=0), 0.5, rtol=0.06)
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.1


def test_no_scale_without_them():
    trajectories = make(tasks=20, **WINDOW)
    np.testing.assert_array_equal(trajectories.advance(0).inverse_scale, 1)
    np.testing.assert_array_equal(drawn(trajectories), 0)


def test_the_optimizer_sees_scales_and_the_task_does_not():
    rates = dict(low_learning_rate=1e-4, high_learning_rate=1e-4)
    scales = dict(scale_range=100.0, scale_jitter=0.5)
    trajectories = make(tasks=20, **scales, **rates, **WINDOW)
    carry = trajectories.advance(0)
    for task in range(20):
        start = trajectories.draw_start(task, 0)
        tensors = trajectories._blocks(task)[0], start.parameters, start.log_scale
        for blocks, parameters, log_scale in zip(*tensors, strict=True):
            values = carry.inner.values[blocks]
            wanted = parameters.ravel() * np.exp(log_scale)
            np.testing.assert_allclose(values.ravel(), wanted, rtol=1e-5)
            seen = (values * carry.inverse_scale[blocks]).ravel()
            np.testing.assert_allclose(seen, parameters.ravel(), rtol=1e-5)
        # The learning rate of a task is relative to its scale.
        wanted = np.log(1e-4) + start.log_scale.mean()
        assert_close(log_rates(trajectories)[task], np.full(9, wanted), rtol=1e-5)


def test_a_task_whose_parameters_change_shape_is_refused():
    batch = ProblemBatch([Pair(), Shrinking()], 3)
    trajectories = Trajectories(
        batch, HierarchicalRule(), TrajectoryConfig(**WINDOW), 0
    )
    message = r"parameters of shrinking must .*\(3,\)\). Received: .*\(2,\)"
    with pytest.raises(ValueError, match=message):
        trajectories.advance(0)
