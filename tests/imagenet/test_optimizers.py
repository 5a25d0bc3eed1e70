"""The optimizers as they are usually run: rates, schedules, decay of kernels."""

import math

import keras
import numpy as np
import pytest

from imagenet.optimizers import OPTIMIZERS, OptimizerSpec, WarmUp, kernels_of
from learned_optimizer import HierarchicalRNN

RUN = {"batch_size": 64, "train_steps": 1000, "steps_per_epoch": 10.0}
CONSTANT = {"schedule": "constant", "warmup_steps": 0}


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        # A constant 1: the optimizer as it was meta-trained.
        ("hierarchical_rnn", 0, 1.0),
        ("hierarchical_rnn", 999, 1.0),
        # 0.045 at 32 images, times 0.94 every 20 steps.
        ("rmsprop", 0, 0.09),
        ("rmsprop", 19, 0.09),
        ("rmsprop", 40, 0.09 * 0.94**2),
        # Five epochs of warm-up, then half a cosine over the 950 steps that are left.
        ("adam", 0, 1e-3 / 50),
        ("adam", 49, 1e-3),
        ("adam", 50, 1e-3),
        ("adam", 50 + 475, 0.5e-3),
        ("adam", 1000, 0.0),
        ("momentum", 49, 0.1 * 64 / 256),
        ("momentum", 50 + 95, 0.025 * 0.5 * (1 + math.cos(math.pi * 0.1))),
        ("adamw", 49, 5e-4 * 64 / 512),
        # A twentieth of the run, however long an epoch is.
        ("nadamw", 0, 1e-3 / 50),
        ("nadamw", 49, 1e-3),
        ("nadamw", 1000, 0.0),
    ],
)
def test_usual_rates(name, step, expected):
    rate = OptimizerSpec(name, **RUN).rate_at(step)
    assert rate == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_given_rate_is_taken_as_it_is(name):
    spec = OptimizerSpec(name, **RUN, **CONSTANT, learning_rate=0.7)
    assert [spec.rate_at(step) for step in (0, 500)] == [0.7, 0.7]


def test_a_short_run_warms_up_over_a_tenth():
    spec = OptimizerSpec("adam", batch_size=64, train_steps=100, steps_per_epoch=1000.0)
    assert spec.warmup_steps == 10


def test_a_schedule_goes_through_its_config():
    schedules = keras.optimizers.schedules
    schedule = WarmUp(0.1, "cosine", 5, 100, 10.0)
    again = schedules.deserialize(schedules.serialize(schedule))
    for step in (0, 4, 5, 50, 100):
        assert float(again(step)) == float(schedule(step))


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_kernels_decay(name):
    """A step with decay differs from one without in kernels alone, or in none."""

    def moved(decay):
        model = network()
        spec = OptimizerSpec(name, **RUN, **CONSTANT, weight_decay=decay)
        optimizer = spec.make(model)
        gradients = [np.full(v.shape, 0.5, np.float32) for v in model.trainable_weights]
        optimizer.apply(gradients, model.trainable_variables)
        return spec, [np.array(v) for v in model.trainable_variables]

    spec, plain = moved(0.0)
    decayed_choice, decayed = moved(0.1)
    assert spec.gradient_decay == 0.0
    decoupled = OPTIMIZERS[name].decoupled
    assert decayed_choice.gradient_decay == (0.0 if decoupled else 0.1)
    kernels = {v.path for v in kernels_of(network())}
    assert len(kernels) == 1
    variables = network().trainable_variables
    for variable, one, other in zip(variables, plain, decayed, strict=True):
        # What goes into the gradient is added by the training step, not here.
        changes = decoupled and variable.name == "kernel"
        assert (one != other).any() == changes, variable.path


@pytest.mark.parametrize(
    ("name", "kind", "decay", "schedule"),
    [
        ("hierarchical_rnn", HierarchicalRNN, 0.0, "constant"),
        ("rmsprop", keras.optimizers.RMSprop, 4e-5, "exponential"),
        ("adam", keras.optimizers.Adam, 0.0, "cosine"),
        ("adamw", keras.optimizers.AdamW, 0.05, "cosine"),
        ("nadamw", keras.optimizers.Nadam, 0.05, "cosine"),
        ("momentum", keras.optimizers.SGD, 1e-4, "cosine"),
    ],
)
def test_each_is_that_of_the_work_named(name, kind, decay, schedule):
    spec = OptimizerSpec(name, **RUN)
    assert type(spec.make(network())) is kind
    assert name == "hierarchical_rnn" or name in spec.describe()
    assert (spec.weight_decay, spec.schedule) == (decay, schedule)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "momentum"])
def test_two_steps_of_a_baseline_by_hand(name):
    """With the constants of the works that `imagenet.optimizers` names."""
    spec = OptimizerSpec(name, **RUN, **CONSTANT, learning_rate=0.1)
    model = network()
    optimizer = spec.make(model)
    variable = model.trainable_variables[1]
    expected = np.array(variable).astype(float)
    one = two = np.zeros(3)
    for step, gradient in enumerate(([0.5, -2.0, 10.0], [1.0, 3.0, -0.1]), 1):
        gradient = np.array(gradient)
        if name == "rmsprop":
            one = 0.9 * one + 0.1 * gradient**2
            # Keras adds epsilon under the root.
            two = move = 0.9 * two + gradient / np.sqrt(one + 1.0)
        elif name == "adam":
            one = 0.9 * one + 0.1 * gradient
            two = 0.999 * two + 0.001 * gradient**2
            root = np.sqrt(two / (1 - 0.999**step))
            move = one / (1 - 0.9**step) / (root + 1e-7)
        else:
            one = move = 0.9 * one + gradient
        expected -= 0.1 * move
        zeros = [np.zeros(v.shape, np.float32) for v in model.trainable_variables]
        zeros[1] = gradient.astype(np.float32)
        optimizer.apply(zeros, model.trainable_variables)
    np.testing.assert_allclose(np.array(variable), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sgd"}, "optimizer must be one of"),
        ({"name": "adam", "schedule": "linear"}, "schedule must be one of"),
        ({"name": "adam", "warmup_steps": 1001}, "warm-up must lie within the run"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSpec(**RUN, **arguments)


def test_the_state_of_the_learned_optimizer_may_take_half_the_memory():
    spec = OptimizerSpec("hierarchical_rnn", **RUN, state_dtype="bfloat16")
    state = spec.make(network()).variables
    assert {v.dtype for v in state if "hidden_state" in v.path} == {"bfloat16"}
    assert "state in bfloat16" in spec.describe()


def test_unknown_weights_are_refused():
    spec = OptimizerSpec("hierarchical_rnn", **RUN, weights="no_such_weights")
    with pytest.raises(ValueError, match="no_such_weights"):
        spec.make(network())
