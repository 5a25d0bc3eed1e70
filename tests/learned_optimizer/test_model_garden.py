"""The shell that Model Garden takes does what the Keras optimizer does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN, fresh_weights, save_weights
from learned_optimizer.keras_step.tensorflow_runner import TensorFlowRunner
from tests.arrays import assert_close, assert_equal
from tests.conftest import slow
from tests.learned_optimizer.garden import (
    INITIAL_LEARNING_RATE,
    build,
    needs_model_garden,
    optimization_config,
    optimizer_of,
)

pytestmark = needs_model_garden

SHAPES = {"dense/kernel": (4, 3), "dense/bias": (3,), "embedding": (6, 2)}


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA takes most of the time, and is not what is tested here."""
    monkeypatch.setattr(TensorFlowRunner, "compiles", lambda self, layout: False)


class Training:
    """Variables and gradients, the same for every optimizer.

    At the step `missing_at`, counted from 0, one variable has no gradient.
    """

    def __init__(self, missing_at=None):
        self._generator = np.random.default_rng(0)
        self.variables = [
            tf.Variable(self._generator.normal(size=shape).astype("f4"), name=name)
            for name, shape in SHAPES.items()
        ]
        self.step_count = 0
        self.missing_at = missing_at

    def gradients(self):
        """Dense ones, and sparse ones for the embedding with one index twice."""
        generator = np.random.default_rng(1 + self.step_count)
        kernel, bias = (
            tf.constant(generator.normal(size=variable.shape).astype("f4"))
            for variable in self.variables[:2]
        )
        rows = tf.constant(generator.normal(size=(3, 2)).astype("f4"))
        sparse = tf.IndexedSlices(rows, tf.constant([1, 4, 1]), tf.constant([6, 2]))
        missing = self.step_count == self.missing_at
        self.step_count += 1
        return [kernel, None if missing else bias, sparse]

    def run(self, apply, steps):
        """Applies `steps` gradients; returns the values after each of them."""
        values = []
        for _ in range(steps):
            apply(list(zip(self.gradients(), self.variables, strict=True)))
            values.append([variable.numpy() for variable in self.variables])
        return values


def by_keras(steps, missing_at=None, **arguments):
    excluded = arguments.pop("exclude_from_weight_decay", None)
    arguments = {"initial_learning_rate": INITIAL_LEARNING_RATE} | arguments
    optimizer = HierarchicalRNN(**arguments)
    optimizer.exclude_from_weight_decay(var_names=excluded)
    values = Training(missing_at).run(
        lambda pairs: optimizer.apply(*zip(*pairs, strict=True)), steps
    )
    return values, optimizer


def assert_same_values(values, expected):
    assert_close(values, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "missing_at, arguments",
    [
        (2, {}),
        (None, {"global_clipnorm": 0.5}),
        (None, {"weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]}),
        slow(None, {"clipnorm": 0.5}),
        slow(None, {"clipvalue": 0.3}),
        slow(None, {"initial_learning_rate": [1e-3, 1e-1], "seed": 7}),
        slow(None, {"weights": "bootstrap-v1"}),
    ],
    ids=str,
)
def test_steps_are_those_of_the_keras_optimizer(missing_at, arguments):
    optimizer = optimizer_of(**arguments)
    values = Training(missing_at).run(optimizer.apply_gradients, 4)
    expected, keras_optimizer = by_keras(4, missing_at, **arguments)
    assert_same_values(values, expected)
    assert optimizer.iterations.numpy() == 4
    assert len(optimizer.get_weights()) > 30
    found, wanted = optimizer.learned.variables[1:], keras_optimizer.variables[2:]
    assert_close(found, wanted, rtol=1e-5, atol=1e-7)


COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 1.0, "decay_steps": 9}}


@pytest.mark.parametrize(
    ("entries", "rate", "expected"),
    [
        ({}, {}, 9),
        ({"horizon": False}, {}, None),
        ({"weights": "released"}, {}, None),
        # A schedule falls by itself.
        ({}, COSINE, None),
        ({"horizon": True}, COSINE, 9),
    ],
)
@pytest.mark.filterwarnings("ignore:`total_steps` lets")
def test_the_learned_rates_end_with_the_trainer(entries, rate, expected):
    from official.core import base_task, train_utils
    from official.core.config_definitions import ExperimentConfig, TrainerConfig

    config = optimization_config(hierarchical_rnn=entries, ema={"average_decay": 0.9})
    config.override({"learning_rate": rate})
    trainer = TrainerConfig(optimizer_config=config, train_steps=9)
    experiment = ExperimentConfig(trainer=trainer)
    optimizer = train_utils.create_optimizer(base_task.Task, experiment)
    assert optimizer._optimizer.learned.total_steps == expected


def test_weights_that_follow_no_schedule_say_so():
    with pytest.raises(ValueError, match="needs weights with a nominal learning rate"):
        optimizer_of(weights="released", horizon=True)


def test_a_training_goes_on_under_the_schedule_with_which_it_began(tmp_path):
    paths = {}
    for known in (True, False):
        optimizer = optimizer_of(horizon=known)
        optimizer.set_train_steps(3)
        Training().run(optimizer.apply_gradients, 1)
        checkpoint = tf.train.Checkpoint(optimizer=optimizer)
        paths[known] = checkpoint.save(tmp_path / str(known))
    for known, path in paths.items():
        optimizer = optimizer_of()
        optimizer.set_train_steps(9)
        tf.train.Checkpoint(optimizer=optimizer).restore(path)
        Training().run(optimizer.apply_gradients, 1)
        expected = 3 if known else None
        assert optimizer.learned.total_steps == expected
        (variable,) = optimizer.learned.step_variables(
            optimizer.learned.learned_variables
        ).total_steps
        assert int(variable) == (expected or 0)


def test_a_step_in_a_function_that_xla_compiles_is_the_same():
    optimizer = optimizer_of()
    training = Training()

    @tf.function(jit_compile=True)
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, training.variables, strict=True))

    # XLA takes no IndexedSlices as arguments.
    values = training.run(
        lambda pairs: step([tf.convert_to_tensor(gradient) for gradient, _ in pairs]), 4
    )
    assert_same_values(values, by_keras(4)[0])


def test_the_learning_rate_multiplies_each_step():
    linear = {"warmup_steps": 4, "warmup_learning_rate": 0.0}
    config = optimization_config(
        learning_rate=2.0,
        hierarchical_rnn={"initial_learning_rate": INITIAL_LEARNING_RATE},
        warmup={"type": "linear", "linear": linear},
    )
    values = Training().run(build(config).apply_gradients, 6)
    # The gradients do not depend on the values, so neither do the learned steps.
    plain = by_keras(6)[0]
    before = now = [variable.numpy() for variable in Training().variables]
    expected = []
    for rate, after in zip([0.0, 0.5, 1.0, 1.5, 2.0, 2.0], plain, strict=True):
        moves = [new - old for new, old in zip(after, before, strict=True)]
        now = [value + rate * move for value, move in zip(now, moves, strict=True)]
        before = after
        expected.append(now)
    assert_close(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate, warnings", [(1.0, 0), (0.1, 1)])
def test_a_learning_rate_that_is_not_that_of_training_is_named(rate, warnings, warned):
    build(optimization_config(learning_rate=rate))
    found = [values for _, *values in warned]
    assert found == [["hierarchical_rnn", rate]] * warnings


def test_gradient_transformers_come_after_the_sum():
    arguments = {"initial_learning_rate": INITIAL_LEARNING_RATE}

    def plus_one(pairs):
        return [(tf.convert_to_tensor(g) + 1.0, variable) for g, variable in pairs]

    def times_three(pairs):
        return [(3.0 * g, variable) for g, variable in pairs]

    optimizer = build(
        optimization_config(hierarchical_rnn=arguments),
        gradient_aggregator=plus_one,
        gradient_transformers=[times_three],
    )
    reference = HierarchicalRNN(**arguments)

    def by_hand(pairs):
        reference.apply(*zip(*times_three(plus_one(pairs)), strict=True))

    values = Training().run(optimizer.apply_gradients, 3)
    assert_same_values(values, Training().run(by_hand, 3))


def test_the_loss_scale_skips_steps_that_overflow():
    import tf_keras

    inner = optimizer_of()
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=8.0)

    def apply(pairs):
        # The third step overflows.
        factor = 8.0 if optimizer.iterations.numpy() != 2 else np.inf
        gradients, variables = zip(*pairs, strict=True)
        scaled = [tf.convert_to_tensor(gradient) * factor for gradient in gradients]
        unscaled = optimizer.get_unscaled_gradients(scaled)
        optimizer.apply_gradients(list(zip(unscaled, variables, strict=True)))

    training = Training()
    values = training.run(apply, 3)
    assert_same_values(values[:2], by_keras(2)[0])
    assert_same_values(values[2:], values[1:2])
    assert optimizer.iterations.numpy() == 3
    assert inner.learned.iterations.numpy() == 2
    assert inner.learned.skipped_steps == 0
    assert optimizer.loss_scale.numpy() == 4.0


def test_a_checkpoint_holds_the_state_and_training_goes_on_from_it(tmp_path):
    def checkpoint(optimizer, training):
        return tf.train.Checkpoint(optimizer=optimizer, values=training.variables)

    training, optimizer = Training(), optimizer_of()
    training.run(optimizer.apply_gradients, 3)
    path = checkpoint(optimizer, training).save(tmp_path / "checkpoint")
    expected = training.run(optimizer.apply_gradients, 2)

    # Another start, which the checkpoint overrules.
    again, restored = Training(), optimizer_of(initial_learning_rate=1e-6)
    status = checkpoint(restored, again).restore(path)
    again.step_count = 3
    values = again.run(restored.apply_gradients, 2)
    status.assert_consumed()
    assert restored.iterations.numpy() == 5
    assert_equal(values, expected)
    assert_equal(restored.get_weights(), optimizer.get_weights())


def test_the_config_makes_the_same_optimizer(tmp_path):
    import tf_keras

    from learned_optimizer.model_garden import ModelGardenHierarchicalRNN

    save_weights(fresh_weights(seed=3), tmp_path / "mine.npz")
    optimizer = ModelGardenHierarchicalRNN(
        weights=str(tmp_path / "mine.npz"),
        weight_decay=0.1,
        clipnorm=0.5,
        seed=7,
        initial_learning_rate=0.02,
        learning_rate=0.5,
        exclude_from_weight_decay=["bias"],
        horizon=False,
    )
    config = tf_keras.optimizers.serialize(optimizer)
    # The numbers of weights that are not shipped are in there.
    (tmp_path / "mine.npz").unlink()
    again = tf_keras.optimizers.deserialize(config, use_legacy_optimizer=True)
    assert again.get_config() == optimizer.get_config()
    learned = again.learned
    found = learned.weight_decay, learned.seed, learned.initial_learning_rate
    assert (*found, again.clipnorm) == (0.1, 7, 0.02, 0.5)
    assert float(again._learning_rate_now()) == 0.5
    variables = [keras.Variable(np.ones(2), name=x) for x in ("kernel", "the_bias")]
    learned.build(variables)
    assert list(map(learned._use_weight_decay, variables)) == [True, False]
    weights = learned.weights, optimizer.learned.weights
    assert_equal(*(each.meta_parameters for each in weights))
