"""The rule in ragged form, as exported, does what the Keras optimizer does."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config
from learned_optimizer.interop.ragged import flat_shapes
from tests.arrays import assert_close
from tests.conftest import slow
from tests.learned_optimizer.by_hand import OptimizerByHand
from tests.learned_optimizer.exported import (
    CONFIGS,
    DEFAULT,
    INITIAL_LEARNING_RATE,
    NOMINAL,
    OF_EMPTY_TENSORS,
    SAME,
    SHIPPED,
    SLOW_CONFIGS,
    NoisyQuadratic,
    by_keras,
    flat,
    follow_export,
    follow_keras,
    good_call,
    weights_of,
)

ROOT = pathlib.Path(__file__).parents[3]
pytestmark = OF_EMPTY_TENSORS


@pytest.mark.parametrize(
    "name", [*SHIPPED, *CONFIGS, *map(slow, ("fresh", *SLOW_CONFIGS))]
)
def test_it_follows_the_keras_optimizer(name, signatures):
    wanted, optimizer, variables = by_keras(name)
    problem = NoisyQuadratic.make()
    found, states = follow_export(signatures(name), problem)
    # Far more than what rounding could explain.
    assert np.abs(found[-1] - found[0]).max() > 1e-3
    np.testing.assert_allclose(found, wanted, **SAME)
    state, near = states[-1], dict(rtol=1e-4, atol=1e-4)
    assert_close(state.get("global_state", []), optimizer.global_state, **near)
    for tensor, variable in enumerate(variables):
        own = part_of(state, problem, tensor)
        for field, value in optimizer.slots(variable).items():
            field = field.replace("true_value", "true_values")
            assert_close(own[field].T, value, **near)
        if "tensor_state" in own:
            assert_close(own["tensor_state"], optimizer.tensor_state(variable), **near)
        if "steps_taken" in own:
            assert own["steps_taken"] == problem.steps


def part_of(state, problem, tensor):
    """What a state says of one tensor: `{name: [features] or [features, n]}`."""
    stop = sum(problem.row_lengths[: tensor + 1])
    rows = slice(stop - problem.row_lengths[tensor], stop)
    of_tensors = (
        *("tensor_state", "started", "log_size", "steps_taken"),
        *("gradient_size", "largest_gradient_size"),
    )
    return {
        name: value[..., tensor if name in of_tensors else rows]
        for name, value in state.items()
        if name not in ("global_state", "horizon")
    }


@pytest.mark.parametrize("name", [DEFAULT, slow("attention, nominal")])
def test_it_follows_the_keras_optimizer_to_a_known_end_and_beyond(name, signatures):
    problem = NoisyQuadratic.make()
    wanted, _, _ = follow_keras(weights_of(name), problem, total_steps=70)
    found, states = follow_export(signatures(name), problem, total_steps=70)
    # The schedule counts.
    assert np.abs(found[60] - by_keras(name)[0][60]).max() > 1e-3
    np.testing.assert_allclose(found, wanted, **SAME)
    np.testing.assert_array_equal(states[0]["horizon"], [70, 0])
    np.testing.assert_array_equal(states[-1]["horizon"], [70, 100])


@pytest.mark.parametrize(
    "shapes",
    [[(7,)], [(1,)], [(0,), (3,), (0,)], [(3, 2), (5,)] * 250],
    ids=["one tensor", "one element", "empty ones", "500 tensors"],
)
def test_any_number_of_tensors(shapes, signatures):
    problem = NoisyQuadratic.make(shapes, steps=5)
    found, _ = follow_export(signatures(DEFAULT), problem)
    assert_follows(found, problem, DEFAULT, INITIAL_LEARNING_RATE)


def assert_follows(found, problem, name, rates):
    """`[steps, elements]` values are those by hand."""
    optimizer = OptimizerByHand(problem.start, weights_of(name), rates)
    for step in range(problem.steps):
        optimizer.call(problem.gradients(optimizer.values, step))
        np.testing.assert_allclose(found[step], flat(optimizer.values), **SAME)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_elements_at_all(lengths, signatures):
    found = signatures(DEFAULT)
    lengths, none = tf.constant(lengths, tf.int64), tf.zeros([0])
    state = found["init"](row_lengths=lengths, initial_learning_rate=tf.constant(0.1))
    arguments = dict(gradients=none, values=none, row_lengths=lengths)
    results = found["update"](**arguments, learning_rate=tf.constant(1.0), **state)
    assert results["values"].shape == (0,)
    assert results["hidden_state"].shape == (10, 0)
    assert results["tensor_state"].shape == (20, len(lengths))
    assert np.all(np.isfinite(results["tensor_state"]))


@pytest.mark.parametrize("name", ["attention, nominal", slow(DEFAULT)])
def test_a_gradient_that_is_not_finite_leaves_its_tensor(name, signatures):
    problem = NoisyQuadratic.make(steps=12)

    def spoil(step, gradients):
        if step in (0, 1, 7):
            gradients[1].reshape(-1)[2] = np.nan
        if step in (0, 4):
            gradients[0].reshape(-1)[0] = -np.inf
        if step == 9:
            for gradient in gradients:
                gradient.reshape(-1)[:1] = np.inf

    wanted, optimizer, _ = follow_keras(weights_of(name), problem, spoil=spoil)
    # Step 9 spoils the four tensors that have elements.
    assert optimizer.skipped_steps == 3 + 2 + 4
    found, states = follow_export(signatures(name), problem, spoil=spoil)
    np.testing.assert_allclose(found, wanted, **SAME)

    def of_tensor(tensor, step):
        """Its values and state after so many steps."""
        values = found[step - 1] if step else flat(problem.start)
        return part_of({"values": values, **states[step]}, problem, tensor)

    for tensor, step in ((1, 0), (1, 1), (1, 7), (1, 9), (0, 0), (0, 4), (0, 9)):
        after = of_tensor(tensor, step + 1)
        for field, value in of_tensor(tensor, step).items():
            # The first update of all finds these for every tensor.
            if step > 0 or field not in ("log_size", "true_values"):
                np.testing.assert_array_equal(after[field], value, field)
    assert np.all(of_tensor(1, 3)["values"] != of_tensor(1, 2)["values"])
    assert np.all(of_tensor(0, 2)["values"] != of_tensor(0, 1)["values"])


def test_nothing_changes_where_no_gradient_is_finite(signatures):
    found = signatures("attention, nominal")
    arguments = good_call(found)
    # The empty tensor moves nothing, but takes its step, and so is the step counted.
    arguments["row_lengths"] = tf.constant([3, 2, 2], tf.int64)
    results = found["update"](**(arguments | {"gradients": tf.fill([7], np.nan)}))
    arguments["horizon"] += [0.0, 1.0]
    for name, value in results.items():
        np.testing.assert_array_equal(value, arguments[name], name)


def test_each_element_may_start_at_a_rate_of_its_own(signatures):
    problem = NoisyQuadratic.make(steps=10)
    generator = np.random.default_rng(1)
    logs = [np.float32(generator.uniform(-7, -2, (1, n))) for n in problem.row_lengths]
    name = "bootstrap-v1"
    found, _ = follow_export(signatures(name), problem, start=np.exp(flat(logs)))
    assert_follows(found, problem, name, logs)


def test_the_documentation_names_the_whole_state():
    text = (ROOT / "docs" / "export.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `\[(.*?)\]` \|", text, re.MULTILINE)
    config = Config(attention=True, nominal=NOMINAL)
    shapes = flat_shapes(config, "elements", "tensors")
    assert "`init_with_total_steps(" in text
    assert dict(rows) == {k: ", ".join(map(str, v)) for k, v in shapes.items()}
