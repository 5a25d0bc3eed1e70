"""Meta-parameters that each problem has for itself."""

import dataclasses

import numpy as np
import pytest

from learned_optimizer.rule.layout import Layout
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule.packed import (
    SHAPES,
    Inputs,
    assert_same_results,
    assert_same_tensor,
    run,
)


def test_each_problem_may_have_meta_parameters_of_its_own(plain):
    weights, inputs, alone = plain
    other_weights = perturbed_weights(seed=5, **dataclasses.asdict(weights.config))
    problems = [0] * 5 + [1] * 5
    layout = Layout.from_shapes(SHAPES * 2, block_size=4, problems=problems)
    both = inputs.beside(inputs)

    def stacked(first, second):
        return {
            name: np.stack([array, second.meta_parameters[name]])
            for name, array in first.meta_parameters.items()
        }

    shared = run(both, weights, layout, meta=stacked(weights, weights))
    assert_same_results(shared, run(both, weights, layout))
    result = run(both, weights, layout, meta=stacked(weights, other_weights))
    others = run(inputs, other_weights)
    for i in range(5):
        assert_same_tensor(result.tensor(i), alone.tensor(i))
        assert_same_tensor(result.tensor(5 + i), others.tensor(i))
    assert np.abs(others.values[0] - alone.values[0]).max() > 1e-3


def test_chunks_with_meta_parameters_a_problem_are_refused():
    weights = perturbed_weights()
    inputs = Inputs.make()
    layout = Layout.from_shapes(SHAPES, 4, 2)
    meta = {name: array[None] for name, array in weights.meta_parameters.items()}
    with pytest.raises(ValueError, match="chunks"):
        run(inputs, weights, layout, meta=meta)
