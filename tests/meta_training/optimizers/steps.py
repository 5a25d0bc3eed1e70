"""Steps of trainable optimizers on random gradients."""

import keras
import numpy as np
import tensorflow as tf

from learned_optimizer import Config
from learned_optimizer.rule.layout import Layout, pack, unpack
from meta_training.optimizers import (
    CoordinatewiseRNN,
    GlobalLearningRate,
    HierarchicalRule,
    LearningRateSchedule,
    TrainableAdam,
)

# Small, and with rates at which a few steps make a difference.
SMALL = {
    "coordinatewise_rnn": CoordinatewiseRNN((4, 3), zero_learning_rate_weights=False),
    "global_learning_rate": GlobalLearningRate(0.1),
    "hierarchical_rnn": HierarchicalRule(Config(level_sizes=(4, 3, 3))),
    "learning_rate_schedule": LearningRateSchedule(0.1, num_steps=3),
    "trainable_adam": TrainableAdam(0.1, beta_2=0.9, epsilon=0.3),
}
SHAPES = [(3,), (2, 2), (5,)]
LAYOUT = Layout.from_shapes(SHAPES, 2, problems=[0, 0, 1])


def random_gradients(steps, shapes=SHAPES, seed=0):
    """A list of tensors for each step, some elements small."""
    generator = np.random.default_rng(seed)

    def draw(shape):
        size = 10.0 ** generator.integers(-2, 2)
        return np.float32(size * generator.normal(size=shape))

    return [[draw(shape) for shape in shapes] for _ in range(steps)]


def trajectory(optimizer, meta_parameters, gradients, layout=LAYOUT, rate=0.01):
    """Tensors after each step from ones, and the last state."""
    values = pack([np.ones(shape, np.float32) for shape in layout.shapes], layout)
    state = optimizer.initial_state(layout, meta_parameters, np.log(rate), values)
    found = []
    for gradient in gradients:
        values, _, state = optimizer.update(
            values, pack(gradient, layout), state, layout, meta_parameters
        )
        found.append([np.asarray(tensor) for tensor in unpack(values, layout)])
    return found, state


def with_keras(optimizer, gradients):
    """The same by a Keras optimizer."""
    variables = [keras.Variable(np.ones(shape, np.float32)) for shape in SHAPES]
    found = []
    for gradient in gradients:
        optimizer.apply([tf.constant(part) for part in gradient], variables)
        found.append([variable.value.numpy() for variable in variables])
    return found
