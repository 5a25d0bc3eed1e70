"""One learned rate is gradient descent; a learned schedule, and its end."""

import keras
import numpy as np

from meta_training.optimizers import GlobalLearningRate, LearningRateSchedule
from tests.meta_training.optimizers.steps import (
    assert_close,
    random_gradients,
    trajectory,
    with_keras,
)


def test_global_learning_rate_is_gradient_descent():
    optimizer = GlobalLearningRate(0.03)
    gradients = random_gradients(5)
    found, _ = trajectory(optimizer, optimizer.initial_meta_parameters(), gradients)
    assert_close(found, with_keras(keras.optimizers.SGD(0.03), gradients), rtol=1e-5)


def test_schedule_keeps_its_last_rate():
    rates = np.array([0.5, 0.02, 0.1], np.float32)
    gradients = random_gradients(6)
    found, state = trajectory(
        LearningRateSchedule(num_steps=3),
        {"log_learning_rates": np.log(rates)},
        gradients,
    )
    values = np.ones(5)
    for step, rate in enumerate([0.5, 0.02, 0.1, 0.1, 0.1, 0.1]):
        values = values - rate * gradients[step][2]
        np.testing.assert_allclose(found[step][2], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.steps_taken, np.full((1, 3), 6))
