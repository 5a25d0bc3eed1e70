"""Validation: the score by hand, and small networks trained by shipped weights."""

import numpy as np
import pytest

from meta_training.held_out.architectures import HeldOutPerceptron
from meta_training.optimizers import (
    GlobalLearningRate,
    HierarchicalRule,
    fresh_trained,
    load_trained,
)
from meta_training.outer.validation import (
    DIVERGED_FACTOR,
    LOSS_FLOOR,
    Validator,
    summarise,
)

SMALL = HeldOutPerceptron(
    30, (6,), 2, title="Small one", data_set="breast_cancer", batch_size=16
)
OTHER = HeldOutPerceptron(
    3, (5,), 6, title="Other one", data_set="spirals", batch_size=16
)


def test_score_by_hand():
    steps, losses = np.array([0, 1, 3]), np.array([[1.0], [0.1], [0.2]])
    logs = np.log(losses[:, 0] + LOSS_FLOOR)
    along = (0.5 * (logs[0] + logs[1]) + (logs[1] + logs[2])) / 3
    regression = logs[2] - logs[1]
    wanted = dict(final_log_loss=logs[2], mean_log_loss=along, diverged=0)
    wanted |= dict(regression=regression, score=(logs[2] + along) / 2 + regression)
    assert summarise(steps, losses) == pytest.approx(wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_divergence_costs_the_same_however_it_ends(bad):
    steps = np.array([0, 5, 10])
    diverged = summarise(steps, np.array([[2.0, 2.0], [1.0, 1.0], [bad, 0.5]]))
    assert diverged["diverged"] == 0.5
    worst = np.log(DIVERGED_FACTOR * (2 + LOSS_FLOOR) + LOSS_FLOOR)
    final = 0.5 * (worst + np.log(0.5 + LOSS_FLOOR))
    assert diverged["final_log_loss"] == pytest.approx(final)
    stuck = summarise(steps, np.full((3, 2), 2.0))
    assert diverged["score"] > stuck["score"]


def test_shipped_weights_score_better_than_fresh_ones_without_compiling_anew():
    shipped = load_trained("bootstrap-v1")
    validate = Validator(shipped.optimizer, [SMALL], (1e-4, 1e-3), steps=60)
    first = validate(shipped.meta_parameters)
    compiled = validate._loops[0][-1]._compiled
    traces = compiled.experimental_get_tracing_count()
    fresh = validate(fresh_trained(shipped.optimizer, seed=0).meta_parameters)
    again = validate(shipped.meta_parameters)
    assert compiled.experimental_get_tracing_count() == traces
    assert again == first
    assert first["score"] < fresh["score"] - 0.5
    for rate in ("0.0001", "0.001"):
        assert first[f"small_one/rate_{rate}/step_60"] < 0.3
    assert all(isinstance(value, float) for value in first.values())


def test_the_score_is_the_mean_over_networks():
    optimizer = GlobalLearningRate(0.5)
    meta_parameters = optimizer.initial_meta_parameters()
    first, second, together = (
        Validator(optimizer, networks, steps=6)(meta_parameters)
        for networks in ([SMALL], [OTHER], [SMALL, OTHER])
    )
    # So far apart that neither alone, nor their sum, could pass for the mean.
    assert first["score"] < -1 and second["score"] > 0.2
    for name in ("score", "final_log_loss", "mean_log_loss", "regression", "diverged"):
        mean = 0.5 * (first[name] + second[name])
        assert together[name] == pytest.approx(mean, rel=1e-5), name
    # The losses of both are there.
    assert together.keys() == first.keys() | second.keys()


def test_large_networks_have_one_rate_and_fewer_steps():
    validate = Validator(
        HierarchicalRule(), steps=40, large_steps=9, initial_learning_rates=(1, 2, 3)
    )
    *small, large = validate._loops
    assert large[1] == (2,) and large[2][-1] == 9
    assert all(len(rates) == 3 and marks[-1] == 40 for _, rates, marks, _ in small)
