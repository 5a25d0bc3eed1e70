"""Vectors as meta-parameters, and the numbers of the nominal rate as data."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config, fresh_weights, load_weights
from learned_optimizer.rule.layout import Layout
from meta_training.optimizers import as_trained
from meta_training.whole_runs.parametrisation import PARAMETRISATIONS, Parametrisation
from tests.arrays import assert_equal

WEIGHTS = as_trained(load_weights("default-v2"))
ARRAYS = WEIGHTS.meta_parameters


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_zero_is_the_start(name):
    parameters = Parametrisation(WEIGHTS, name)
    found = parameters.weights(np.zeros(parameters.size), "found")
    assert found.optimizer == WEIGHTS.optimizer and found.name == "found"
    assert_equal(found.meta_parameters, ARRAYS)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_every_number_changes_one_array_or_one_field(name):
    parameters = Parametrisation(WEIGHTS, name)
    start = parameters.arrays(np.zeros(parameters.size))
    changed = set()
    for place in np.linspace(0, parameters.size - 1, 40).round().astype(int):
        point = np.zeros(parameters.size)
        point[place] = 0.3
        arrays = parameters.arrays(point)
        (only,) = [k for k in arrays if not np.array_equal(arrays[k], start[k])]
        assert arrays[only].shape == start[only].shape
        changed.add(only)
    assert len(changed) > 8


def test_how_numbers_change_what_they_stand_for():
    parameters = Parametrisation(WEIGHTS, "scales")
    found = parameters.arrays(np.full(parameters.size, 0.2))
    factor = np.exp(0.2)
    wanted = factor * ARRAYS["learning_rate_weights"]
    np.testing.assert_allclose(found["learning_rate_weights"], wanted, 1e-6)
    wanted = ARRAYS["tensor_gates_bias"] + 0.2
    np.testing.assert_allclose(found["tensor_gates_bias"], wanted, atol=1e-6)
    nominal = WEIGHTS.optimizer.config.nominal
    assert found["nominal.ratio"] == pytest.approx(nominal.ratio * factor)
    assert found["nominal.lowest"] == pytest.approx(nominal.lowest * factor)
    # Numbers of any size leave every field within its bounds.
    for size in (-20.0, 20.0):
        point = np.full(parameters.size, size)
        assert parameters.weights(point, "far").optimizer.config.nominal != nominal
    assert sum(v.size for v in ARRAYS.values()) == Parametrisation(WEIGHTS, "all").size


def test_numbers_of_the_nominal_rate_do_what_constants_do():
    """The rule with them as data steps as the architecture that has them."""
    parameters = Parametrisation(WEIGHTS, "scales")
    point = np.random.default_rng(0).uniform(-0.4, 0.4, parameters.size)
    arrays, weights = parameters.arrays(point), parameters.weights(point, "constants")
    assert weights.optimizer.config.nominal != WEIGHTS.optimizer.config.nominal
    layout = Layout.from_shapes([(3, 4), (5,)], 4)
    generator = np.random.default_rng(1)
    shape = (layout.num_blocks, 4)
    values = generator.standard_normal(shape).astype(np.float32)

    def final(optimizer, meta_parameters):
        @tf.function(autograph=False)
        def steps(arrays):
            state = optimizer.initial_state(layout, arrays, -5.0, values)
            gradients = np.random.default_rng(2)
            found = tf.constant(values)
            for _ in range(6):
                gradient = gradients.standard_normal(shape).astype(np.float32)
                update = optimizer.update(found, gradient, state, layout, arrays)
                found, state = update.values, update.state
            return found

        return steps(tf.nest.map_structure(tf.constant, meta_parameters)).numpy()

    as_data = final(parameters.optimizer, arrays)
    constants = final(weights.optimizer, weights.meta_parameters)
    np.testing.assert_allclose(as_data, constants, rtol=1e-4, atol=1e-6)
    start = final(WEIGHTS.optimizer, ARRAYS)
    assert np.abs(constants - start).max() > 1e-3


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_gradients_of_arrays_become_those_of_numbers(name):
    parameters = Parametrisation(WEIGHTS, name)
    generator = np.random.default_rng(3)
    point = generator.uniform(-0.2, 0.2, parameters.size)
    slopes = {k: generator.standard_normal(np.shape(v)) for k, v in ARRAYS.items()}

    def along(point):
        arrays = parameters._values(point)
        return sum(float(np.sum(slopes[k] * arrays[k])) for k in slopes)

    gradient = parameters.gradient(point, slopes)
    for place in np.linspace(0, parameters.size - 1, 25).round().astype(int):
        change = np.zeros(parameters.size)
        change[place] = 1e-4
        wanted = (along(point + change) - along(point - change)) / 2e-4
        assert gradient[place] == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_weights_without_a_nominal_rate():
    weights = as_trained(load_weights("bootstrap-v1"))
    assert weights.optimizer.config.nominal is None
    parameters = Parametrisation(weights, "scales")
    assert not any(k.startswith("nominal") for k in parameters.arrays(np.zeros(99)))
    found = parameters.weights(np.zeros(parameters.size), "found")
    assert found.optimizer == weights.optimizer
    with pytest.raises(ValueError, match="nominal rate. Received: bootstrap-v1"):
        Parametrisation(weights, "nominal")


def test_the_nominal_rate_alone():
    parameters = Parametrisation(WEIGHTS, "nominal")
    found = parameters.weights(np.full(parameters.size, 0.1), "found")
    assert_equal(found.meta_parameters, ARRAYS)
    before, after = WEIGHTS.optimizer.config.nominal, found.optimizer.config.nominal
    same = [k for k, value in vars(before).items() if value == getattr(after, k)]
    # Bounds that may be absent are no numbers to search.
    assert same == [
        *("largest", "shallow_tensors", "narrow_width", "horizon_shallow_tensors")
    ]


def test_numbers_of_a_readout_of_zeros():
    weights = as_trained(fresh_weights(Config(), 0))
    parameters = Parametrisation(weights, "readouts")
    found = parameters.arrays(np.ones(parameters.size))
    np.testing.assert_allclose(found["learning_rate_weights"], 0.05)


def test_the_readout_of_an_odd_direction_is_one():
    def numbers(**switches):
        config = Config(nominal={}, **switches)
        return Parametrisation(as_trained(fresh_weights(config, 0)), "readouts").size

    # Ten numbers for each of four timescales, in the place of ten.
    assert numbers(odd_direction=True) == numbers() + 30


def test_an_unknown_parametrisation():
    with pytest.raises(ValueError, match="readouts, nominal, all. Received: 'x'"):
        Parametrisation(WEIGHTS, "x")
