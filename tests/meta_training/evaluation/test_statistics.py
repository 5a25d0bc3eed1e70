"""Log-losses, chosen rates, wins and intervals, by hand."""

import math

import numpy as np
import pytest

from meta_training.evaluation import statistics
from tests.meta_training.evaluation.results_by_hand import result


def test_log_losses_by_hand():
    logs = statistics.log_losses(np.array([[2.0], [0.5], [0.0], [np.nan], [1e30]]))
    expected = [
        math.log(2 / (2 + 1e-6) + 1e-6),
        math.log(0.5 / (2 + 1e-6) + 1e-6),
        math.log(1e-6),
        -math.log(1e-6),
        -math.log(1e-6),
    ]
    np.testing.assert_allclose(logs[:, 0], expected, rtol=1e-12)


def test_rates_are_chosen_for_all_tasks_and_for_each():
    # [records, rates, tasks, seeds]: the second rate is best on the second task only.
    losses = np.ones((3, 2, 2, 1))
    losses[1:, 0] = [[0.001], [0.5]]
    losses[1:, 1] = [[0.9], [0.4]]
    for metric in statistics.METRICS:
        default, single, each = statistics.choices(result(losses, default=1e-2), metric)
        assert default.rates.tolist() == [1, 1]
        assert single.rates.tolist() == [0, 0]
        assert each.rates.tolist() == [0, 1]
    final = statistics.scores(result(losses), "final loss")
    assert final[1, 0, 0] == pytest.approx(math.log(0.9), abs=1e-5)
    # The trapezoid from 1 to 0.9 and the flat step after it.
    mean = statistics.scores(result(losses), "mean log-loss")
    assert mean[1, 0, 0] == pytest.approx(0.75 * math.log(0.9), abs=1e-5)


def test_interquartile_mean_and_interval():
    table = np.array([[0.0, 1, 2, 3], [4, 5, 6, 100]])
    assert statistics.interquartile_mean(table) == pytest.approx((2 + 3 + 4 + 5) / 4)
    low, high = statistics.interval(table)
    assert low < 3.5 < high
    assert statistics.interval(np.ones((3, 4))) == (1, 1)
    # Seeds are drawn again, tasks are not.
    assert statistics.interval(np.array([[0.0] * 8, [10.0] * 8])) == (5, 5)
    # Runs that diverged have infinite losses.
    low, high = statistics.interval(np.array([[1.0, 1, 2, np.inf], [1, 2, np.inf, 3]]))
    assert 1 <= low <= high and not np.isnan(high)


def test_fraction_won_counts_ties():
    own, other = np.array([[1.0], [2], [3]]), np.array([[1.0], [3], [2]])
    assert statistics.fraction_won(own, other) == pytest.approx(2 / 3)


def test_the_interval_of_wins_is_that_of_tasks_and_of_seeds():
    """Where seeds agree it is that of a share of 100 tasks: binomial."""
    own = np.zeros((100, 3))
    other = np.where(np.arange(100) < 70, 1.0, -1.0)[:, None] + np.zeros((1, 3))
    low, high = statistics.won_interval(own, other)
    wanted = 1.96 * math.sqrt(0.7 * 0.3 / 100)
    assert low == pytest.approx(0.7 - wanted, abs=0.02)
    assert high == pytest.approx(0.7 + wanted, abs=0.02)
    # One task, whose mean over seeds is drawn below the other's or not.
    own, other = np.array([[-1.0, 3.0]]), np.array([[0.0, 0.0]])
    assert statistics.won_interval(own, other) == (0, 1)
    assert statistics.won_interval(np.zeros((4, 2)), np.zeros((4, 2))) == (1, 1)


def test_progress_and_sensitivity_floor_losses():
    losses = np.ones((3, 2, 1, 2))
    losses[1:, 0, 0] = [[1e-5, 0.1], [5e-4, 0.2]]
    losses[2, 1, 0] = [np.nan, 1]
    found = statistics.progress(result(losses))
    assert found.ratio[:, 0].tolist() == pytest.approx([2, np.inf])
    assert statistics.sensitivity(result(losses))[0] == np.inf
    losses[2] = [[[1e-5, 1e-5]], [[3e-3, 3e-3]]]
    assert statistics.sensitivity(result(losses))[0] == pytest.approx(3)


def test_the_interval_is_that_of_95_of_100():
    """Of one task the plain bootstrap, drawn here once more."""
    generator = np.random.default_rng(1)
    seeds = generator.normal(size=40)
    drawn = np.sort(generator.choice(seeds, (20_000, 40)))[:, 10:30].mean(axis=1)
    wanted = np.percentile(drawn, [2.5, 97.5])
    found = statistics.interval(seeds[None])
    assert np.diff(found) == pytest.approx(np.diff(wanted), rel=0.1)
    np.testing.assert_allclose(found, wanted, atol=0.06)
