"""A state in bfloat16: how it is rounded, what it takes, and that it costs nothing."""

import keras
import ml_dtypes
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN
from learned_optimizer.rule.half_precision import (
    HALF_FIELDS,
    as_floats,
    block_seeds,
    rounded,
)
from tests.conftest import on_backends


def stored(value, step=0, blocks=64):
    """`[1, blocks, 256]`, one number rounded at so many places."""
    values = {
        name: np.full((1, blocks, 256), value, np.float32) for name in HALF_FIELDS
    }
    found = as_floats(rounded(values, block_seeds(step, blocks)))["mean_squares"]
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    return np.array(keras.ops.convert_to_numpy(found)).astype(np.float64)


@pytest.mark.parametrize("value", [1 / 3, -1.001, 3e-12, 7.77e4, 1.99999])
def test_numbers_are_rounded_to_their_neighbours_and_kept_in_the_mean(value):
    value = np.float32(value)
    down = np.array([value]).view(np.uint32) & 0xFFFF0000
    neighbours = np.sort([(down + up).view(np.float32)[0] for up in (0, 1 << 16)])
    found = stored(value)
    np.testing.assert_array_equal(np.unique(found), neighbours)
    distance = neighbours[1] - neighbours[0]
    share = (value - neighbours[0]) / distance
    error = 4 * np.sqrt(share * (1 - share) / found.size)
    assert abs((found > neighbours[0]).mean() - share) < error


@pytest.mark.parametrize("value", [0.0, 1.0, -0.375, 2.0**-100])
def test_numbers_of_bfloat16_stay_as_they_are(value):
    np.testing.assert_array_equal(stored(value), value)


def test_steps_blocks_and_elements_are_rounded_by_themselves():
    one, other = stored(1.002, 5), stored(1.002, 6)
    ups = [one, other, one[:, ::-1], one[:, :, ::-1]]
    for i, first in enumerate(ups):
        for second in ups[:i]:
            # Two that know nothing of each other agree at so many places.
            share = (first > 1).mean()
            expected = share**2 + (1 - share) ** 2
            assert abs((first == second).mean() - expected) < 0.02


def test_an_average_goes_where_it_would_stand_still():
    average = np.ones((1, 4, 256), np.float32)
    nearest = np.ones((), ml_dtypes.bfloat16)
    for step in range(1000):
        moved = average + 0.001 * (2.0 - average)
        values = dict.fromkeys(HALF_FIELDS, moved.astype(np.float32))
        found = rounded(values, block_seeds(step, 4))["gradient_averages"]
        found = as_floats({"": found})[""]
        average = np.array(keras.ops.convert_to_numpy(found)).astype(np.float32)
        nearest = (nearest + np.float32(0.001) * (2 - nearest)).astype(nearest.dtype)
    assert nearest == 1
    assert average.mean() == pytest.approx(2 - 0.999**1000, rel=3e-3)


def test_it_is_in_the_config_and_takes_half_the_bytes():
    optimizer = HierarchicalRNN(state_dtype="bfloat16")
    assert optimizer.get_config()["state_dtype"] == "bfloat16"
    optimizer = HierarchicalRNN.from_config(optimizer.get_config())
    optimizer.build([keras.Variable(np.zeros((100, 256), np.float32))])
    state = optimizer.step_variables(optimizer._trainable_variables).state
    lists = [variables for variables in state.values() if isinstance(variables, list)]
    widths = {"float32": 4, "bfloat16": 2}
    taken = sum(
        widths[keras.backend.standardize_dtype(variable.dtype)]
        * np.prod(variable.shape)
        for variable in sum(lists, [])
    )
    assert 38 <= taken / 25_600 <= 42


def train(state_dtype, seed, steps=60):
    """Losses of a small network, and its model."""
    keras.utils.set_random_seed(seed)
    inputs = np.random.default_rng(seed).normal(size=(64, 8)).astype(np.float32)
    targets = np.sin(inputs @ np.arange(8, dtype=np.float32)[:, None])
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(HierarchicalRNN(state_dtype=state_dtype), "mse")
    model.fit(inputs, targets, batch_size=64, epochs=steps, verbose=0)
    return model.evaluate(inputs, targets, verbose=0), model, (inputs, targets)


@pytest.mark.slow
def test_losses_are_not_higher_by_more_than_the_spread_of_seeds():
    full, half = (
        np.log([train(dtype, seed)[0] for seed in range(4)])
        for dtype in ("float32", "bfloat16")
    )
    assert not np.array_equal(full, half)
    assert half.mean() - full.mean() < full.std()


def check_files(tmp_path):
    """A state goes from one type to the other, and on from there."""
    for there, back in (("float32", "bfloat16"), ("bfloat16", "float32")):
        _, model, data = train(there, 0, steps=3)
        path = tmp_path / f"{there}.weights.h5"
        model.save_weights(path)
        other = keras.models.clone_model(model)
        other.compile(HierarchicalRNN(state_dtype=back), "mse")
        other.optimizer.build(other.trainable_variables)
        other.load_weights(path)
        assert other.optimizer.updates_done == 3
        for one, two in zip(
            model.trainable_variables, other.trainable_variables, strict=True
        ):
            expected = model.optimizer.slots(one)
            for name, value in other.optimizer.slots(two).items():
                assert value.dtype == np.float32
                near = 2**-8 if name in HALF_FIELDS else 0
                np.testing.assert_allclose(value, expected[name], rtol=near)
        other.fit(*data, verbose=0)
        path = tmp_path / f"{back}.keras"
        other.save(path)
        loaded = keras.models.load_model(path)
        assert loaded.optimizer.state_dtype == back
        slots = [
            each.optimizer.slots(each.trainable_variables[0])["hidden_state"]
            for each in (loaded, other)
        ]
        np.testing.assert_array_equal(*slots)


def test_files_of_the_one_type_are_read_by_the_other(tmp_path):
    check_files(tmp_path)


@pytest.mark.parametrize("backend", on_backends("jax", "torch", is_slow=True))
def test_other_backends_do_the_same(backend, tmp_path):
    assert keras.config.backend() == backend
    np.testing.assert_allclose(stored(1 / 3).mean(), 1 / 3, rtol=1e-4)
    check_files(tmp_path)
