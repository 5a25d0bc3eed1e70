"""One learned rate is gradient descent."""

import keras

from meta_training.optimizers import GlobalLearningRate
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
