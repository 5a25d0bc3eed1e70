"""One learned rate is gradient descent; a learned schedule, and its end."""

import keras
import numpy as np

from learned_optimizer.rule.layout import unpack
from meta_training.optimizers import (
    GlobalLearningRate,
    LearningRateSchedule,
    TrainableAdam,
)
from tests.arrays import assert_close
from tests.meta_training.optimizers.steps import (
    LAYOUT,
    SHAPES,
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


def test_trainable_adam_takes_the_steps_of_keras():
    optimizer = TrainableAdam(0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-8)
    gradients = random_gradients(12)
    found, state = trajectory(optimizer, optimizer.initial_meta_parameters(), gradients)
    adam = keras.optimizers.Adam(0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-8)
    assert_close(found, with_keras(adam, gradients), rtol=1e-5, atol=1e-6)
    # The released second moment stays 0.
    second = np.zeros(5)
    for gradient in gradients:
        second = 0.99 * second + 0.01 * gradient[2].astype(float) ** 2
    moment = unpack(state.second_moment[0], LAYOUT)[2]
    np.testing.assert_allclose(moment, second, rtol=1e-5)
    assert np.all(np.asarray(moment) > 0)


def test_trainable_adam_has_a_floor_under_the_root():
    optimizer = TrainableAdam(0.1, epsilon=1e-6)
    gradient = [np.full(shape, 1e-5, np.float32) for shape in SHAPES]
    found, _ = trajectory(optimizer, optimizer.initial_meta_parameters(), [gradient])
    step = 0.1 * 1e-5 / (np.sqrt(1e-10 + 1e-10) + 1e-6 + 1e-10)
    np.testing.assert_allclose(found[0][0], 1 - step, rtol=1e-5)
