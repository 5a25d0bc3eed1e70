"""Looking inside an optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config, HierarchicalRNN
from tests.learned_optimizer.by_hand import (
    Problem,
    apply_all,
    assert_same_state,
    make_optimizer,
    make_variables,
    perturbed_weights,
)


@pytest.fixture(scope="module")
def trained():
    """A plain optimizer after the whole problem, and what was computed by hand."""
    problem = Problem.make()
    variables = make_variables(problem)
    optimizer = make_optimizer()
    apply_all(optimizer, variables, problem.gradients())
    return optimizer, variables, problem.run_by_hand()


@pytest.mark.parametrize(
    "switches, numbers_a_parameter",
    [
        (dict(), 19),
        (dict(attention=True), 20),
        (dict(dynamic_output_scale=False, relative_learning_rate=False), 18),
        (dict(level_sizes=(7,), gradient_timescales=2), 12),
    ],
)
def test_slots_hold_the_whole_state_of_a_variable(switches, numbers_a_parameter):
    config = Config(**switches)
    variables = make_variables(Problem.make())
    optimizer = make_optimizer(weights=perturbed_weights(**switches))
    optimizer.build(variables)
    for variable in variables:
        count = int(np.prod(variable.shape))
        slots = optimizer.slots(variable)
        assert slots["hidden_state"].shape == (count, config.level_sizes[0])
        assert slots["gradient_averages"].shape == (count, config.gradient_timescales)
        assert slots["mean_squares"].shape == (count, config.gradient_timescales)
        if config.dynamic_output_scale:
            assert slots["log_learning_rate"].shape == (count,)
        found = sum(array.size for array in slots.values())
        assert found == numbers_a_parameter * count
        sizes = (*config.level_sizes, 0, 0)
        assert optimizer.tensor_state(variable).shape == (sizes[1],)
        assert optimizer.global_state.shape == (sizes[2],)


@pytest.mark.parametrize("attention", [False, True])
def test_the_optimizer_s_variables_are_19_numbers_a_parameter(attention):
    totals = []
    for rows in (32, 64):
        # Of whole chunks, so that nothing is padded.
        variables = [keras.Variable(np.zeros((rows, 256), np.float32)) for _ in "ab"]
        optimizer = make_optimizer(weights=perturbed_weights(attention=attention))
        optimizer.build(variables)
        totals.append(sum(int(np.prod(x.shape)) for x in optimizer.variables))
    # What is there once, or once a tensor, is the same in both.
    assert totals[1] - totals[0] == (19 + attention) * 2 * 32 * 256


def test_what_is_looked_at_is_read_only_and_a_copy(trained):
    optimizer, variables, expected = trained
    assert_same_state(optimizer, variables, expected)
    views = [
        *optimizer.slots(variables[0]).values(),
        optimizer.tensor_state(variables[0]),
        optimizer.global_state,
    ]
    for view in views:
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0


def test_the_state_is_in_optimizer_variables(trained):
    optimizer, _, _ = trained
    held = {id(variable) for variable in optimizer.variables}
    for name in ("hidden_state", "log_learning_rate", "global_state", "started"):
        for variable in tf.nest.flatten(getattr(optimizer, f"_{name}")):
            assert id(variable) in held
    meta = optimizer.meta_variables
    assert held.isdisjoint(id(variable) for variable in meta)
    wanted = optimizer.weights.meta_parameters.values()
    assert sum(int(np.prod(x.shape)) for x in meta) == sum(x.size for x in wanted)
    assert not any(x.trainable for x in [*optimizer.variables, *meta])


def test_looking_inside_before_building_is_refused():
    optimizer = HierarchicalRNN()
    variable = keras.Variable(1.0)
    for look in (
        lambda: optimizer.slots(variable),
        lambda: optimizer.tensor_state(variable),
        lambda: optimizer.global_state,
        lambda: optimizer.skipped_steps,
    ):
        with pytest.raises(ValueError, match="call `optimizer.build"):
            look()
