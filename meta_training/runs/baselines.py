"""Keras's optimizers as pure functions of stacked runs, a learning rate a run.

They follow `keras.optimizers` to the last epsilon, at its defaults (a test compares
them), so that what the learned optimizer is measured against is what a user gets.
Values and gradients are lists of `[runs, *shape]` tensors.

An optimizer of runs has

    start(values, arguments) -> state
    gradient_values(values, state) -> where the gradients are taken
    step(values, gradients, state, iteration, arguments) -> values, state

`iteration` counts from 0; `arguments` are tensors that may change between calls
without a new compilation: for a baseline `learning_rate`, `[runs]`, and `total_steps`.
"""

import math

import tensorflow as tf

from meta_training.tasks.base import broadcast_tasks


class Baseline:
    """What the baselines have in common: the gradient is taken at the values."""

    # How many tensors of the values' shapes the state holds.
    slots = 0

    def start(self, values, arguments):
        del arguments
        return tuple(
            [tf.zeros_like(value) for value in values] for _ in range(self.slots)
        )

    def gradient_values(self, values, state):
        del state
        return values

    def step(self, values, gradients, state, iteration, arguments):
        rates = self.learning_rate(iteration, arguments)
        new_values, new_slots = [], []
        for value, gradient, *slots in zip(values, gradients, *state, strict=True):
            rate = broadcast_tasks(rates, value)
            value, *slots = self.update(value, gradient, slots, rate, iteration)
            new_values.append(value)
            new_slots.append(slots)
        return new_values, tuple(
            [slots[index] for slots in new_slots] for index in range(self.slots)
        )

    def learning_rate(self, iteration, arguments):
        del iteration
        return arguments["learning_rate"]

    def update(self, value, gradient, slots, rate, iteration):
        """One tensor's new value, followed by its new slots."""
        raise NotImplementedError


class Adam(Baseline):
    """`keras.optimizers.Adam`: beta_1 0.9, beta_2 0.999, epsilon 1e-7."""

    slots = 2
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-7

    def update(self, value, gradient, slots, rate, iteration):
        momentum, velocity = slots
        count = tf.cast(iteration + 1, tf.float32)
        correction = tf.sqrt(1 - self.beta_2**count) / (1 - self.beta_1**count)
        momentum += (gradient - momentum) * (1 - self.beta_1)
        velocity += (tf.square(gradient) - velocity) * (1 - self.beta_2)
        change = momentum * rate * correction / (tf.sqrt(velocity) + self.epsilon)
        return value - change, momentum, velocity


class AdamWCosine(Adam):
    """`keras.optimizers.AdamW`, weight decay 0.004, with `CosineDecay` to 0."""

    weight_decay = 0.004

    def learning_rate(self, iteration, arguments):
        total = tf.cast(arguments["total_steps"], tf.float32)
        fraction = tf.cast(iteration, tf.float32) / total
        return arguments["learning_rate"] * 0.5 * (1 + tf.cos(math.pi * fraction))

    def update(self, value, gradient, slots, rate, iteration):
        decayed = value - value * self.weight_decay * rate
        return super().update(decayed, gradient, slots, rate, iteration)


class RMSprop(Baseline):
    """`keras.optimizers.RMSprop`: rho 0.9, epsilon 1e-7 inside the root."""

    slots = 1
    rho, epsilon = 0.9, 1e-7

    def update(self, value, gradient, slots, rate, iteration):
        (velocity,) = slots
        velocity = self.rho * velocity + (1 - self.rho) * tf.square(gradient)
        return value - rate * gradient / tf.sqrt(velocity + self.epsilon), velocity


class SGDMomentum(Baseline):
    """`keras.optimizers.SGD` with momentum 0.9."""

    slots = 1
    momentum = 0.9

    def update(self, value, gradient, slots, rate, iteration):
        (velocity,) = slots
        velocity = self.momentum * velocity - rate * gradient
        return value + velocity, velocity


# Names in reports, and the learning rate that Keras gives each by default.
BASELINES = {
    "Adam": (Adam(), 1e-3),
    "RMSprop": (RMSprop(), 1e-3),
    "SGD momentum": (SGDMomentum(), 1e-2),
    "AdamW cosine": (AdamWCosine(), 1e-3),
}


class SideBySide(Baseline):
    """Several baselines in one loop: each has an equal share of the runs, in order.

    One objective and one compilation serve them all.
    """

    def __init__(self, optimizers):
        self.optimizers = tuple(optimizers)

    def _shares(self, tensors):
        """The tensors of each optimizer."""
        count = len(self.optimizers)
        return list(
            zip(*(tf.split(tensor, count, axis=0) for tensor in tensors), strict=True)
        )

    def _arguments(self, arguments):
        count = len(self.optimizers)
        rates = tf.split(arguments["learning_rate"], count, axis=0)
        return [{**arguments, "learning_rate": rate} for rate in rates]

    def start(self, values, arguments):
        return tuple(
            optimizer.start(share, arguments)
            for optimizer, share in zip(
                self.optimizers, self._shares(values), strict=True
            )
        )

    def step(self, values, gradients, state, iteration, arguments):
        steps = [
            optimizer.step(list(own), list(slopes), own_state, iteration, own_arguments)
            for optimizer, own, slopes, own_state, own_arguments in zip(
                self.optimizers,
                self._shares(values),
                self._shares(gradients),
                state,
                self._arguments(arguments),
                strict=True,
            )
        ]
        new_values = [
            tf.concat(parts, axis=0)
            for parts in zip(*(values for values, _ in steps), strict=True)
        ]
        return new_values, tuple(state for _, state in steps)
