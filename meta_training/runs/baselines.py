"""Keras's optimizers as pure functions of stacked runs, a learning rate a run.

They follow `keras.optimizers` to the last epsilon, at its defaults (a test compares
them), so that what the learned optimizer is measured against is what a user gets.
Values and gradients are lists of `[runs, *shape]` tensors.

An optimizer of runs has

    start(values, arguments) -> state
    gradient_values(values, state) -> where the gradients are taken
    step(values, gradients, state, iteration, arguments) -> values, state
    evaluation_values(values, state) -> where losses are recorded
    fresh_statistics, whether the statistics of batch normalisation are to be computed
        anew from all rows where losses are recorded, since training never was there

`iteration` counts from 0; `arguments` are tensors that may change between calls
without a new compilation: for a baseline `learning_rate`, `[runs]`, and `total_steps`,
the length of the runs, which schedules follow.
"""

import math

import tensorflow as tf

from meta_training.tasks.base import broadcast_tasks


def constant(iteration, total_steps):
    """The rate stays as it is."""
    return 1.0


def cosine(iteration, total_steps):
    """`keras.optimizers.schedules.CosineDecay` to 0 at `total_steps`, as a factor."""
    fraction = tf.cast(iteration, tf.float32) / tf.cast(total_steps, tf.float32)
    return 0.5 * (1 + tf.cos(math.pi * tf.minimum(fraction, 1.0)))


def warm_up_and_cosine(iteration, total_steps):
    """The same after a linear rise over 5% of the steps (`warmup_steps` of Keras)."""
    warm_up = warm_up_steps(total_steps)
    rising = tf.cast(iteration, tf.float32) / tf.cast(warm_up, tf.float32)
    falling = cosine(iteration - warm_up, total_steps - warm_up)
    return tf.where(iteration < warm_up, rising, falling)


def warm_up_steps(total_steps):
    """5% of the steps, rounded up."""
    return (total_steps + 19) // 20


class Baseline:
    """What the baselines have in common: the gradient is taken at the values.

    Args:
        schedule: `constant`, `cosine` or `warm_up_and_cosine`.
        weight_decay: decoupled, times the rate, as `weight_decay` of Keras.
    """

    # How many tensors of the values' shapes the state holds.
    slots = 0
    fresh_statistics = False

    def __init__(self, schedule=constant, weight_decay=0.0):
        self.schedule, self.weight_decay = schedule, weight_decay

    def start(self, values, arguments):
        return tuple(
            [tf.zeros_like(value) for value in values] for _ in range(self.slots)
        )

    def gradient_values(self, values, state):
        return values

    def evaluation_values(self, values, state):
        return values

    def step(self, values, gradients, state, iteration, arguments):
        rates = arguments["learning_rate"]
        if self.schedule is not constant:
            rates *= self.schedule(iteration, arguments["total_steps"])
        new_values, new_slots = [], []
        for update, value, gradient, *slots in zip(
            self.updates(values), values, gradients, *state, strict=True
        ):
            rate = broadcast_tasks(rates, value)
            if self.weight_decay:
                value -= value * self.weight_decay * rate
            value, *slots = update(value, gradient, slots, rate, iteration)
            new_values.append(value)
            new_slots.append(slots)
        return new_values, tuple(
            [slots[index] for slots in new_slots] for index in range(self.slots)
        )

    def updates(self, values):
        """The function that updates each tensor."""
        return [self.update] * len(values)

    def update(self, value, gradient, slots, rate, iteration):
        """One tensor's new value, followed by its new slots."""
        raise NotImplementedError


class Adam(Baseline):
    """`keras.optimizers.Adam`: beta_1 0.9, beta_2 0.999, epsilon 1e-7.

    With `weight_decay=0.004`, its default there, `keras.optimizers.AdamW`.
    """

    slots = 2
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-7

    def update(self, value, gradient, slots, rate, iteration):
        momentum, velocity = self.averages(gradient, *slots)
        count = tf.cast(iteration + 1, tf.float32)
        correction = tf.sqrt(1 - self.beta_2**count) / (1 - self.beta_1**count)
        change = momentum * rate * correction / (tf.sqrt(velocity) + self.epsilon)
        return value - change, momentum, velocity

    def averages(self, gradient, momentum, velocity):
        """The two moving averages one step on."""
        momentum += (gradient - momentum) * (1 - self.beta_1)
        velocity += (tf.square(gradient) - velocity) * (1 - self.beta_2)
        return momentum, velocity


class Nadam(Adam):
    """`keras.optimizers.Nadam`; with a weight decay what others call NAdamW."""

    def update(self, value, gradient, slots, rate, iteration):
        momentum, velocity = self.averages(gradient, *slots)
        count = tf.cast(iteration + 1, tf.float32)
        # The product of all decays so far; after 256 factors it is below 1e-11.
        numbers = tf.range(1.0, 257.0)
        product = tf.reduce_prod(
            tf.where(numbers <= count, self._decay(numbers), tf.ones_like(numbers))
        )
        decay, next_decay = self._decay(count), self._decay(count + 1)
        ahead = next_decay * momentum / (1 - product * next_decay)
        ahead += (1 - decay) * gradient / (1 - product)
        scale = tf.sqrt(velocity / (1 - self.beta_2**count)) + self.epsilon
        return value - rate * ahead / scale, momentum, velocity

    def _decay(self, count):
        return self.beta_1 * (1 - 0.5 * 0.96**count)


class ScheduleFreeAdamW(Adam):
    """`keras.optimizers.ScheduleFreeAdamW` (Defazio et al. 2024), without warm-up.

    The values are y, where gradients are taken; z is the first slot. It is judged at
    the average x = (y - (1 - beta_1) z) / beta_1. This is the class under JAX, and the
    paper's algorithm: with TensorFlow, Keras 3.15 takes the new z for the old one when
    it computes x, so that y becomes the plain mean of z.
    """

    epsilon = 1e-8
    fresh_statistics = True

    def start(self, values, arguments):
        return list(values), [tf.zeros_like(value) for value in values]

    def evaluation_values(self, values, state):
        return [self._average(y, z) for y, z in zip(values, state[0], strict=True)]

    def update(self, value, gradient, slots, rate, iteration):
        before, velocity = slots
        count = tf.cast(iteration + 1, tf.float32)
        velocity += (tf.square(gradient) - velocity) * (1 - self.beta_2)
        scale = tf.sqrt(velocity / (1 - self.beta_2**count)) + self.epsilon
        z = before - rate * gradient / scale
        average = self._average(value, before)
        average += (z - average) / count
        return (1 - self.beta_1) * z + self.beta_1 * average, z, velocity

    def _average(self, y, z):
        return (y - (1 - self.beta_1) * z) / self.beta_1


class Muon(Adam):
    """`keras.optimizers.Muon`: matrices by Newton-Schulz, the rest by AdamW.

    The last matrix, which gives the outputs, is left to AdamW (`exclude_layers`).
    """

    momentum, iterations, coefficients = 0.95, 5, (3.4445, -4.7750, 2.0315)
    rms_rate = 0.2

    def updates(self, values):
        updates = super().updates(values)
        matrices = [i for i, value in enumerate(values) if value.shape.rank == 3]
        for index in matrices[:-1]:
            updates[index] = self._update_matrix
        return updates

    def _update_matrix(self, value, gradient, slots, rate, iteration):
        momentum = gradient + self.momentum * slots[0]
        direction = self._orthogonal(gradient + self.momentum * momentum)
        length = self.rms_rate * math.sqrt(max(value.shape[1:]))
        return value - rate * length * direction, momentum, slots[1]

    def _orthogonal(self, matrix):
        """About the nearest orthogonal matrix, of each run."""
        is_tall = matrix.shape[1] > matrix.shape[2]
        x = tf.linalg.matrix_transpose(matrix) if is_tall else matrix
        x /= tf.norm(x, axis=[1, 2], keepdims=True) + 1e-7
        a, b, c = self.coefficients
        for _ in range(self.iterations):
            square = tf.matmul(x, x, transpose_b=True)
            x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
        return tf.linalg.matrix_transpose(x) if is_tall else x


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
    "Adam cosine": (Adam(cosine), 1e-3),
    "AdamW cosine": (Adam(cosine, weight_decay=0.004), 1e-3),
    "NAdamW": (Nadam(warm_up_and_cosine, weight_decay=0.004), 1e-3),
    "NAdamW constant": (Nadam(weight_decay=0.004), 1e-3),
    "Schedule-free AdamW": (ScheduleFreeAdamW(), 2.5e-3),
    "Muon cosine": (Muon(cosine, weight_decay=0.004), 1e-3),
    "RMSprop": (RMSprop(), 1e-3),
    "SGD momentum": (SGDMomentum(), 1e-2),
}
