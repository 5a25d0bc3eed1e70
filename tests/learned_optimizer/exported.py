"""An exported optimizer and the Keras one on the same problem, as trajectories.

The problem is quadratic with noise in its gradients. Without noise both end where the
gradient is rounding alone, and its scaled form, which is all that the RNN sees, follows
the last digit: then two runs of one program part, too, after a change of 1e-7.
"""

import dataclasses
import functools
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN, fresh_weights, list_weights, load_weights
from learned_optimizer.weights import ALIASES
from tests.learned_optimizer.by_hand import perturbed_weights

SHAPES = ((4, 3), (5,), (0,), (), (2, 1), (0, 3))
INITIAL_LEARNING_RATE = 0.01

# One of each architecture.
SHIPPED = sorted(
    {load_weights(n).config: n for n in list_weights() if n not in ALIASES}.values()
)
# The version that `HierarchicalRNN()` has; the alias moves on.
DEFAULT = ALIASES["default"]
NOMINAL = dict(ratio=0.5, memory=3.0, decay_steps=20.0)
# Fewer tensors than the problem has, and smaller than some of them are.
DEEP = NOMINAL | dict(largest=0.5, shallow_tensors=2.0)
CONFIGS = {"attention, nominal": dict(attention=True, nominal=DEEP)}
SLOW_CONFIGS = {
    "one level": dict(level_sizes=(1,), extreme_indicator=True),
    "no output scale": dict(
        dynamic_output_scale=False, relative_learning_rate=False, attention=True
    ),
    "attention": dict(attention=True),
    "two levels": dict(
        level_sizes=(4, 6), gradient_timescales=2, learning_rate_shortcut=True
    ),
    "one timescale": dict(gradient_timescales=1, gradient_products=False),
    "last tensor": dict(global_rnn_input="last_tensor", learnable_decay=False),
    "tensor mean": dict(learning_rate_mean="tensor", multiple_scale_decays=True),
    "few inputs": dict(
        log_mean_squares=False, gradient_products=False, gradient_shortcut=False
    ),
    "nominal": dict(nominal=NOMINAL, learnable_input_decay=False),
}


# Rounding: a start that differs in its last bit makes half of that within 50 steps.
SAME = dict(rtol=1e-5, atol=1e-5)
# `by_hand` takes their mean.
OF_EMPTY_TENSORS = pytest.mark.filterwarnings(
    "ignore:Mean of empty slice", "ignore:invalid value", "ignore:__array__"
)


@functools.cache
def weights_of(name):
    """Shipped weights, or perturbed ones of a row of the tables."""
    if name in list_weights():
        return load_weights(name)
    if name == "fresh":
        return fresh_weights(seed=3)
    return perturbed_weights(**(CONFIGS | SLOW_CONFIGS)[name])


@dataclasses.dataclass
class NoisyQuadratic:
    """`curvature * (x - target)^2 / 2`, with noise of its own at each step."""

    start: list
    targets: list
    curvatures: list
    noise: list

    @classmethod
    def make(cls, shapes=SHAPES, steps=100, seed=0):
        generator = np.random.default_rng(seed)

        def draw(*leading):
            normal = generator.standard_normal
            return [np.float32(normal((*leading, *shape))) for shape in shapes]

        start = draw()
        if len(start) > 1:
            # As a bias: its size is then that of the others.
            start[1] *= 0
        return cls(start, draw(), [np.exp(x) for x in draw()], draw(steps))

    @property
    def steps(self):
        return len(self.noise[0])

    @property
    def row_lengths(self):
        return [value.size for value in self.start]

    def flat(self):
        """The same problem with its tensors behind one another."""
        return NoisyQuadratic(
            [flat(self.start)],
            [flat(self.targets)],
            [flat(self.curvatures)],
            [np.concatenate([x.reshape(self.steps, -1) for x in self.noise], axis=1)],
        )

    def gradients(self, values, step):
        """At `values`, a list of arrays."""
        return [
            np.array(curvature * (value - target) + noise[step])
            for value, target, curvature, noise in zip(
                values, self.targets, self.curvatures, self.noise, strict=True
            )
        ]


def flat(arrays):
    """Arrays flattened behind one another."""
    return np.concatenate([np.ravel(array) for array in arrays])


def schedule(step):
    """A learning rate that changes, so that the argument counts."""
    return np.float32(1.0 if step < 50 else 0.3)


def follow_keras(
    weights,
    problem,
    start=INITIAL_LEARNING_RATE,
    learning_rate=schedule,
    spoil=None,
    total_steps=None,
):
    """`[steps, elements]` values after each step, the optimizer and its variables.

    `spoil(step, gradients)` may change the gradients.
    """
    optimizer = HierarchicalRNN(
        weights=weights, initial_learning_rate=start, total_steps=total_steps
    )
    variables = [keras.Variable(value) for value in problem.start]
    optimizer.build(variables)
    apply = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    found = []
    for step in range(problem.steps):
        optimizer.learning_rate = learning_rate(step)
        gradients = problem.gradients([value.numpy() for value in variables], step)
        if spoil:
            spoil(step, gradients)
        apply([tf.constant(gradient) for gradient in gradients])
        found.append(flat([value.numpy() for value in variables]))
    return np.stack(found), optimizer, variables


def follow_export(
    signatures, problem, start=INITIAL_LEARNING_RATE, spoil=None, total_steps=None
):
    """`[steps, elements]` values after each step; the state before and after each."""
    row_lengths = tf.constant(problem.row_lengths, tf.int64)
    ends = np.cumsum(problem.row_lengths)[:-1]
    init, horizon = signatures["init"], {}
    if total_steps is not None:
        init = signatures["init_with_total_steps"]
        horizon = {"total_steps": tf.constant(total_steps, tf.int64)}
    state = init(
        row_lengths=row_lengths,
        initial_learning_rate=tf.constant(start, tf.float32),
        **horizon,
    )
    values = tf.constant(flat(problem.start))
    whole = problem.flat()
    found, states = [], [{name: value.numpy() for name, value in state.items()}]
    for step in range(problem.steps):
        (gradients,) = whole.gradients([values.numpy()], step)
        if spoil:
            # Views into the flat array.
            spoil(step, np.split(gradients, ends))
        results = signatures["update"](
            gradients=tf.constant(gradients),
            values=values,
            row_lengths=row_lengths,
            learning_rate=tf.constant(schedule(step)),
            **state,
        )
        state = {name: value for name, value in results.items() if name != "values"}
        values = results["values"]
        found.append(values.numpy())
        states.append({name: value.numpy() for name, value in state.items()})
    return np.stack(found), states


@functools.cache
def by_keras(name):
    """The Keras optimizer's trajectory, and optimizer and variables at its end."""
    return follow_keras(weights_of(name), NoisyQuadratic.make())


def good_call(signatures):
    """Arguments of an update that are in order."""
    lengths, rate = tf.constant([3, 0, 4], tf.int64), tf.constant(0.1)
    state = signatures["init"](row_lengths=lengths, initial_learning_rate=rate)
    return dict(
        gradients=tf.ones([7]),
        values=tf.ones([7]),
        row_lengths=lengths,
        learning_rate=tf.constant(1.0),
        **state,
    )


def foreign_model(path):
    shutil.rmtree(path)
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    tf.saved_model.save(module, os.fspath(path))
