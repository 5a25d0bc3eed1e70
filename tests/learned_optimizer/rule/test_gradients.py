"""Gradients that are limited, and those of which a step must be left out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from tests.learned_optimizer.by_hand import (
    Problem,
    apply_all,
    assert_follows,
    make_optimizer,
    make_variables,
)


@pytest.mark.parametrize("limit", [0.0, -1.0])
@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_zero_and_less_clip_nothing_as_in_keras(name, limit):
    problem = Problem.make(steps=2)
    variables = make_variables(problem)
    optimizer = make_optimizer(**{name: limit})
    apply_all(optimizer, variables, problem.gradients())
    assert_follows(optimizer, variables, problem.run_by_hand())


@pytest.mark.parametrize("options", [{}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}])
def test_the_largest_finite_gradients_leave_a_finite_state(options):
    variable = keras.Variable(np.zeros(600, np.float32))
    optimizer = HierarchicalRNN(**options)
    for gradient in (3e38, -3e38, 1.0):
        optimizer.apply([tf.fill([600], gradient)], [variable])
        for name, array in optimizer.slots(variable).items():
            assert np.all(np.isfinite(array)), name
        assert np.all(np.isfinite(variable.numpy()))
    assert optimizer.skipped_steps == 0
    # The first step went down the gradient, by one step length in each element.
    assert np.all(variable.numpy() != 0)


def test_a_gradient_that_is_not_finite_leaves_its_tensor_bit_for_bit():
    problem = Problem.make().broken()
    variables = make_variables(problem)
    optimizer = make_optimizer(global_clipnorm=1.0, weight_decay=0.3)
    optimizer.build(variables)

    def arrays_of(variable):
        slots = optimizer.slots(variable).values()
        return [variable.numpy(), optimizer.tensor_state(variable), *slots]

    skipped = 0
    for step in problem.gradients():
        before = [arrays_of(variable) for variable in variables]
        global_state = optimizer.global_state
        apply_all(optimizer, variables, [step])
        broken = [i for i in range(4) if not np.all(np.isfinite(step[i]))]
        skipped += len(broken)
        assert optimizer.skipped_steps == skipped
        for i, variable in enumerate(variables):
            for new, old in zip(arrays_of(variable), before[i], strict=True):
                assert np.array_equal(new, old) == (i in broken)
                assert np.all(np.isfinite(new))
        all_broken = len(broken) == 4
        assert np.array_equal(global_state, optimizer.global_state) == all_broken
    assert skipped == 7
