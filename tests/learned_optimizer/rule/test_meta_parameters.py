"""Fresh meta-parameters are drawn as in the released code."""

import numpy as np
import pytest

from learned_optimizer import Config, fresh_weights


def pooled(name, draws=60, **switches):
    """Many draws of one array behind one another."""
    config = Config(**switches)
    return np.stack(
        [fresh_weights(config, seed).meta_parameters[name] for seed in range(draws)]
    ).astype(np.float64)


@pytest.mark.parametrize(
    "name, mean, deviation",
    [
        ("direction_weights", 0, 0.5 / np.sqrt(10)),
        ("mean_square_decay_weights", 0, 0.5 / np.sqrt(10)),
        ("gradient_decay_weights", 0, 0.5 / np.sqrt(10)),
        ("parameter_gates_kernel", 0, 0.5 / np.sqrt(22)),
        ("parameter_candidate_kernel", 0, 0.5 / np.sqrt(22)),
        ("tensor_gates_kernel", 0, 0.5 / np.sqrt(42)),
        ("tensor_candidate_kernel", 0, 0.5 / np.sqrt(42)),
        ("global_gates_kernel", 0, 0.5 / np.sqrt(40)),
        ("tensor_to_parameter_kernel", 0, 0.5 / np.sqrt(20)),
        ("global_to_parameter_kernel", 0, 0.5 / np.sqrt(20)),
        ("global_to_tensor_kernel", 0, 0.5 / np.sqrt(20)),
        ("gradient_shortcut", 1 / 4, 0.1 / np.sqrt(4)),
        ("parameter_start", 0, 1 / np.sqrt(3)),
        ("tensor_start", 0, 1 / np.sqrt(3)),
        ("global_start", 0, 1 / np.sqrt(3)),
    ],
)
def test_fresh_weights_are_distributed_as_in_the_released_code(name, mean, deviation):
    draws = pooled(name)
    error = deviation / np.sqrt(draws.size)
    assert abs(draws.mean() - mean) < 4.5 * error
    assert draws.std() == pytest.approx(deviation, rel=4.5 / np.sqrt(2 * draws.size))
    is_uniform = name.endswith("_start")
    # Excess kurtosis: -1.2 of a uniform distribution, 0 of a normal one.
    centred = (draws - draws.mean()) / draws.std()
    kurtosis = np.mean(centred**4) - 3
    if draws.size > 500:
        assert kurtosis == pytest.approx(-1.2 if is_uniform else 0, abs=0.6)
    if is_uniform:
        assert np.abs(draws).max() <= 1


@pytest.mark.parametrize(
    "name, value",
    [
        ("parameter_gates_bias", 2.2),
        ("tensor_gates_bias", 2.2),
        ("global_gates_bias", 2.2),
        ("parameter_candidate_bias", 0),
        ("tensor_to_parameter_bias", 0),
        ("mean_square_decay_bias", 3.2),
        ("gradient_decay_bias", 2.2),
        ("learning_rate_weights", 0),
        ("learning_rate_bias", 0),
        ("learning_rate_momentum_logit", 3.2),
        ("step_length_offset", -1),
    ],
)
def test_fresh_constants_are_those_of_the_released_code(name, value):
    assert np.all(pooled(name, draws=2) == np.float32(value))


def test_learning_rate_weights_may_start_at_random():
    draws = pooled("learning_rate_weights", zero_learning_rate_weights=False)
    assert draws.std() == pytest.approx(0.5 / np.sqrt(10), rel=0.15)


def test_attention_starts_equal_to_the_update():
    found = fresh_weights(Config(attention=True), seed=3).meta_parameters
    for one, other in (
        ("direction_weights", "attention_weights"),
        ("gradient_shortcut", "attention_shortcut"),
    ):
        np.testing.assert_array_equal(found[one], found[other])
