"""Learned optimizers on stacked runs: as the Keras class, and packed."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from learned_optimizer.weights import fresh_weights, load_weights
from meta_training.optimizers import HierarchicalRule
from meta_training.runs import LearnedRuns, TrainingLoop, draw_runs, learned
from tests.meta_training.runs.step_by_step import NETWORK, STEPS, train_with_keras


@pytest.mark.parametrize(
    "counts, size", [([3], 4), ([5, 5], 8), ([256, 512], 256), ([86_000], 512)]
)
def test_blocks_are_of_the_size_that_costs_least(counts, size):
    # A block costs as its elements and eight more.
    assert learned._best_block_size(counts) == size


@pytest.mark.parametrize(
    "name, total_steps, dtype, tolerances",
    [
        ("bootstrap-v1", None, "float32", (1e-5, 2e-3)),
        ("default-v3", 30, "float32", (1e-5, 2e-3)),
        # The two round other elements up.
        ("default-v4", None, "bfloat16", (2e-4, 3e-3)),
    ],
)
def test_learned_loop_is_the_keras_class(name, total_steps, dtype, tolerances):
    draws = draw_runs([NETWORK], [3, 4], STEPS)
    weights = load_weights(name)
    rates = np.array([1e-3, 1e-2], np.float32)
    rule = HierarchicalRule(weights.config)
    is_half = dtype == "bfloat16"
    optimizer = LearnedRuns(rule, NETWORK.parameter_shapes, 2, is_half)
    loop = TrainingLoop(NETWORK, optimizer, [0, 1], draws)
    arguments = {
        "meta_parameters": weights.meta_parameters,
        "log_learning_rate": np.log(rates),
    }
    if total_steps:
        arguments["total_steps"] = np.full(2, total_steps, np.float32)
    values = [tf.constant(value) for value in draws.start]
    state = optimizer.start(values, arguments)
    for found in (state, optimizer.step(values, values, state, 0, arguments)[1]):
        assert found[0].hidden_state.dtype == found[0].mean_squares.dtype == dtype
    steps = 25
    runs = loop(np.arange(steps + 1), arguments)
    for run, rate in enumerate(rates):
        options = dict(total_steps=total_steps, state_dtype=dtype)
        optimizer = HierarchicalRNN(
            weights=name, initial_learning_rate=float(rate), **options
        )
        _, losses = train_with_keras(optimizer, draws, run, steps)
        np.testing.assert_allclose(runs.losses[:, run], losses, rtol=tolerances[1])
        np.testing.assert_allclose(runs.losses[:8, run], losses[:8], rtol=tolerances[0])
        if is_half:
            assert not np.allclose(runs.losses[:, run], losses, rtol=1e-5)


def test_gradients_that_are_not_finite_change_nothing():
    optimizer = LearnedRuns(HierarchicalRule(), [(3,), (2, 2)], 2)
    values = [tf.ones([2, 3]), tf.ones([2, 2, 2])]
    arguments = {
        "meta_parameters": fresh_weights(seed=0).meta_parameters,
        "log_learning_rate": np.log([1e-2, 1e-2]).astype(np.float32),
    }
    gradients = [tf.constant([[1, np.nan, 1], [1, 2, 3.0]]), tf.ones([2, 2, 2])]
    state = optimizer.start(values, arguments)
    new, _ = optimizer.step(values, gradients, state, 0, arguments)
    np.testing.assert_array_equal(new[0][0], values[0][0])
    assert (
        np.all(new[0][1] != 1) and np.all(np.isfinite(new[1])) and np.all(new[1] != 1)
    )
