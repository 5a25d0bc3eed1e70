"""Where the learned rates start."""

import keras
import numpy as np

from learned_optimizer import HierarchicalRNN, load_weights
from tests.learned_optimizer.by_hand import perturbed_weights


def test_initial_rates_are_the_card_s_by_default():
    variable = keras.Variable(np.zeros(5, np.float32))
    optimizer = HierarchicalRNN()
    optimizer.build([variable])
    rates = optimizer.slots(variable)["log_learning_rate"]
    start = load_weights("default").initial_learning_rate
    np.testing.assert_allclose(rates, np.log(start), rtol=1e-6)


def test_a_range_is_half_drawn_an_element_and_half_a_tensor():
    low, high = 1e-5, 1e-2
    half = (np.log(high) - np.log(low)) / 2
    variables = [keras.Variable(np.zeros(2000, np.float32)) for _ in range(40)]

    def rates(seed):
        optimizer = HierarchicalRNN(initial_learning_rate=(low, high), seed=seed)
        optimizer.build(variables)
        return np.stack([optimizer.slots(x)["log_learning_rate"] for x in variables])

    found = rates(seed=3)
    assert found.min() >= np.log(low) - 1e-5 and found.max() <= np.log(high) + 1e-5
    # Within a tensor: uniform over half the log range.
    spans = found.max(axis=1) - found.min(axis=1)
    assert np.all((spans > 0.98 * half) & (spans <= half + 1e-5))
    np.testing.assert_allclose(found.std(axis=1), half / np.sqrt(12), rtol=0.05)
    # Between tensors: the other half.
    starts = found.min(axis=1) - np.log(low)
    assert starts.max() > 0.9 * half and starts.min() < 0.1 * half
    assert abs(starts.mean() - half / 2) < 4 * half / np.sqrt(12 * 40)
    np.testing.assert_array_equal(found, rates(seed=3))
    assert not np.array_equal(found, rates(seed=4))


def test_initial_rates_are_clipped_to_the_bounds():
    variable = keras.Variable(np.zeros(2, np.float32))
    weights = perturbed_weights(max_log_learning_rate=-5.0)
    for start, wanted in ((1.0, -5.0), (1e-20, -33.0)):
        optimizer = HierarchicalRNN(weights=weights, initial_learning_rate=start)
        optimizer.build([variable])
        rates = optimizer.slots(variable)["log_learning_rate"]
        np.testing.assert_array_equal(rates, np.float32([wanted, wanted]))
