"""What users of Keras's own optimizers take for granted around a step.

Copies, other default dtypes, calls that take no step, settings that change on the way,
and calls that do not fit the variables.
"""

import copy
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from tests.arrays import assert_equal
from tests.learned_optimizer import by_hand
from tests.learned_optimizer.by_hand import (
    Problem,
    apply_all,
    assert_follows,
    assert_same,
    make_optimizer,
    make_variables,
    numbers,
)

# Keras's default dtype.


@pytest.fixture(params=["float64", "float16", "bfloat16"])
def floatx(request):
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(request.param)
    # Once asked for, the policy of layers no longer follows.
    keras.config.set_dtype_policy(request.param)
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def test_the_default_dtype_of_keras_changes_no_step(floatx):
    problem = Problem.make(steps=3)
    options = dict(weight_decay=0.1, global_clipnorm=1.0)
    options |= dict(use_ema=True, ema_momentum=0.5)
    variables = make_variables(problem)
    optimizer = make_optimizer(**options)
    apply_all(optimizer, variables, problem.gradients())
    assert_follows(optimizer, variables, problem.run_by_hand(**options))


# Training without a step.


def frozen(model, optimizer, problem):
    model.trainable = False
    by_hand.fit(model, optimizer, problem)


def over(model, optimizer, problem):
    by_hand.fit(model, optimizer, problem, epochs=2, initial_epoch=2)


def over_with_scaled_losses(model, optimizer, problem):
    over(model, keras.optimizers.LossScaleOptimizer(optimizer), problem)


@pytest.mark.parametrize("train", [frozen, over, over_with_scaled_losses])
@pytest.mark.parametrize("use_ema", [False, True])
def test_training_without_a_step_changes_nothing(train, use_ema):
    problem = Problem.make(steps=1)
    model = by_hand.make_model(problem)
    optimizer = make_optimizer(use_ema=use_ema)
    train(model, optimizer, problem)
    assert_equal(problem.values, numbers(model.weights))


# Training that is stopped, and two models that train each other.


def test_a_discriminator_is_frozen_while_the_generator_learns(tmp_path):
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    discriminator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    discriminator.compile(HierarchicalRNN(), "mse")
    both = keras.Sequential([generator, discriminator])
    discriminator.trainable = False
    both.compile(HierarchicalRNN(), "mse")
    noise, real = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)

    def moved(train, *arguments):
        models = generator, discriminator
        before = [model.get_weights() for model in models]
        train(*arguments)
        return [
            any(np.any(x != y) for x, y in zip(model.get_weights(), old, strict=True))
            for model, old in zip(models, before, strict=True)
        ]

    for _ in range(3):
        discriminator.trainable = True
        assert moved(discriminator.train_on_batch, real, noise[:, :1]) == [False, True]
        discriminator.trainable = False
        assert moved(both.train_on_batch, noise, noise[:, :1]) == [True, False]
    assert len(both.optimizer.learned_variables) == 2
    both.save(tmp_path / "both.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "A saved state")
        loaded = keras.models.load_model(tmp_path / "both.keras")
    found = loaded.train_on_batch(noise, noise[:, :1])
    assert found == pytest.approx(both.evaluate(noise, noise[:, :1], verbose=0), 1e-6)
    assert int(loaded.optimizer.iterations) == 4


# Settings that change between steps.


@pytest.mark.parametrize(
    "setting, first, then",
    [
        ("learning_rate", 1.0, 0.25),
        ("weight_decay", 0.1, 0.9),
        ("weight_decay", None, 0.5),
        ("clipnorm", 1.0, 0.01),
        ("clipvalue", 0.5, 0.001),
        ("global_clipnorm", 1.0, 0.01),
        ("loss_scale_factor", 2.0, None),
    ],
)
def test_a_setting_that_is_changed_counts_from_the_next_step_on(setting, first, then):
    problem = Problem.make(steps=2)
    variables = make_variables(problem)
    optimizer = make_optimizer(**{setting: first})
    expected = by_hand.OptimizerByHand(problem.values)
    for value, gradients in zip((first, then), problem.gradients(), strict=True):
        setattr(optimizer, setting, value)
        if setting != "loss_scale_factor":
            setattr(expected, setting, value)
        apply_all(optimizer, variables, [gradients])
        scale = value if setting == "loss_scale_factor" and value else 1
        expected.call([gradient / scale for gradient in gradients])
    assert_follows(optimizer, variables, expected)
    unchanged = {} if setting == "loss_scale_factor" else {setting: first}
    with pytest.raises(AssertionError):
        assert_same(numbers(variables), problem.run_by_hand(**unchanged).values)


# Copies.


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_an_optimizer_of_the_same_settings_not_built(copied, built):
    def settings(kind):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
        return kind(schedule, weight_decay=0.1, clipnorm=2.0)

    for one in (settings(keras.optimizers.Adam), settings(HierarchicalRNN)):
        if built:
            one.apply([tf.ones(3)], [keras.Variable(np.ones(3, np.float32))])
        with warnings.catch_warnings():
            # Keras's own says that it leaves its state behind.
            warnings.simplefilter("ignore")
            other = copied(one)
        assert type(other) is type(one)
        assert other.get_config() == one.get_config()
        assert not other.built


def test_a_copy_has_weights_that_were_never_in_a_file():
    one = HierarchicalRNN(weights=by_hand.perturbed_weights())
    other = copy.deepcopy(one)
    assert other.weights is not one.weights
    assert_equal(other.weights.meta_parameters, one.weights.meta_parameters)


# Calls that do not fit the variables.


SHAPES = (64,), (128,), (2, 3), ()


@pytest.mark.parametrize(
    "shapes, received, sparse",
    [
        (((128,), (64,), (2, 3), ()), r"\(128,\) for .*of shape \(64,\)", True),
        (((64,), (128,), (3, 2), ()), r"\(3, 2\) for .*of shape \(2, 3\)", False),
        (((64,), (128,), (), ()), r"\(\) for .*of shape \(2, 3\)", False),
        (((64,), (128,), (2, 3), (1,)), r"\(1,\) for .*of shape \(\)", False),
    ],
    ids=["swapped", "transposed", "scalar", "for a scalar"],
)
def test_gradients_of_other_shapes_are_refused(shapes, received, sparse):
    variables = [keras.Variable(np.ones(shape, np.float32)) for shape in SHAPES]
    gradients = [tf.ones(shape) for shape in shapes]
    if sparse:
        rows = len(gradients[0])
        gradients[0] = tf.IndexedSlices(
            gradients[0], tf.range(rows), tf.constant([rows])
        )
    optimizer = make_optimizer()
    with pytest.raises(
        ValueError, match=f"shape of its variable. Received: .*{received}"
    ):
        optimizer.apply(gradients, variables)
    assert not optimizer.built


def test_gradients_whose_shapes_are_known_later_are_taken():
    problem = Problem.make(steps=1)
    variables = make_variables(problem)
    optimizer = make_optimizer()
    optimizer.build(variables)

    @tf.function(
        input_signature=[
            [tf.TensorSpec([None] * len(value.shape)) for value in problem.values]
        ]
    )
    def step(gradients):
        optimizer.apply(gradients, variables)

    step(problem.gradients()[0])
    assert_follows(optimizer, variables, problem.run_by_hand())


def test_a_variable_that_comes_twice_is_refused():
    one, other = (keras.Variable(np.ones(3, np.float32)) for _ in range(2))
    optimizer = make_optimizer()
    optimizer.build([one, other])
    with pytest.raises(ValueError, match="each variable once. Received: .*twice"):
        optimizer.apply([tf.ones(3), tf.ones(3)], [one, one])
    assert int(optimizer.iterations) == 0
