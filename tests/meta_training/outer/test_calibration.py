"""The search for the level of the rates, on known functions and on real runs."""

import numpy as np
import pytest

from learned_optimizer import load_weights
from meta_training.optimizers import HierarchicalRule
from meta_training.outer.calibration import Calibration, CalibrationConfig
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron

WEIGHTS = load_weights("bootstrap-v1")
RULE = HierarchicalRule(WEIGHTS.config)
TASKS = [Perceptron(4, (5,), 3, batch_size=8, rows=64), Quadratic(3), Quadratic(3)]


class Valley(Calibration):
    """A calibration whose score is known: lowest at `bottom`."""

    def __init__(self, bottom, knobs):
        self.config = CalibrationConfig(knobs=knobs)
        self.bottom = bottom
        self.calls = []

    def score(self, meta_parameters):
        values = tuple(float(np.mean(meta_parameters[name])) for name in self.bottom)
        self.calls.append(values)
        wanted = np.array(list(self.bottom.values()))
        return float(np.sum(np.square(np.array(values) - wanted)))


@pytest.mark.parametrize(
    "bottom, found",
    [
        ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}),
        ({"a": 2.9, "b": 0.0}, {"a": 3.0, "b": 0.0}),
        ({"a": -1.4, "b": 0.6}, {"a": -1.5, "b": 0.5}),
    ],
)
def test_the_search_ends_at_the_bottom(bottom, found):
    valley = Valley(bottom, ("a", "b"))
    start = {"a": np.zeros(2, np.float32), "b": np.zeros((), np.float32)}
    best, trials = valley.search(start)
    for name, value in found.items():
        np.testing.assert_allclose(best[name], value)
        assert best[name].shape == start[name].shape
    assert len(set(valley.calls)) == len(valley.calls) == len(trials)
    assert min(trial.score for trial in trials) == valley.score(best)
    np.testing.assert_array_equal(start["a"], 0)


def test_the_score_is_that_of_whole_runs():
    """A frozen optimizer scores as the start does, a good one lower."""
    calibration = Calibration(TASKS, RULE, CalibrationConfig(steps=40))
    frozen = dict(WEIGHTS.meta_parameters)
    frozen["step_length_offset"] = np.float32(-60.0)
    starts = []
    for loop, _ in calibration._loops:
        arguments = {
            "meta_parameters": frozen,
            "log_learning_rate": np.zeros(loop.optimizer.runs, np.float32),
        }
        losses = loop(calibration.record_steps, arguments).losses
        np.testing.assert_allclose(losses, losses[:1].repeat(len(losses), 0), rtol=1e-5)
        starts += list(np.log(losses[0] + 1e-3))
    assert len(starts) == len(TASKS)
    assert calibration.score(frozen) == pytest.approx(np.mean(starts), rel=1e-4)
    assert calibration.score(WEIGHTS.meta_parameters) < calibration.score(frozen)


def test_bad_calibrations():
    with pytest.raises(ValueError, match="tasks must be one or more"):
        Calibration([], RULE)
    with pytest.raises(ValueError, match="must be at most high_learning_rate"):
        CalibrationConfig(low_learning_rate=1.0, high_learning_rate=0.1)
