"""Arguments and variables that are refused, or that a warning is given of."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step.arguments import checked_total_steps

SCHEDULES = keras.optimizers.schedules


class NeedsMore(SCHEDULES.LearningRateSchedule):
    def __call__(self, step):
        raise RuntimeError("not yet")


RATES = {
    "Adam's": (1e-3, "at most 0.001"),
    "nothing": (0.0, "at most 0"),
    "a tenth": (0.1, None),
    "the default": (1.0, None),
    "Adam's schedule": (SCHEDULES.CosineDecay(1e-3, 1000), "at most 0.001"),
    "a warm-up to Adam's": (
        SCHEDULES.CosineDecay(0.0, 900, warmup_target=1e-2, warmup_steps=100),
        "at most 0.01",
    ),
    "a warm-up": (SCHEDULES.PolynomialDecay(0.001, 1000, 1.0), None),
    "a decay": (SCHEDULES.ExponentialDecay(1.0, 10, 0.5), None),
    "a callable": (lambda: 1e-3, None),
    "a schedule that fails": (NeedsMore(), None),
}


@pytest.mark.parametrize("name", RATES)
def test_a_learning_rate_of_adams_gets_one_warning(name):
    rate, words = RATES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = HierarchicalRNN(learning_rate=rate)
        if not callable(rate):
            # The person was told; a copy and a loaded model tell them nothing new.
            HierarchicalRNN.from_config(optimizer.get_config())
    messages = [str(w.message) for w in caught if "multiplies a step" in str(w.message)]
    assert len(messages) == (words is not None)
    if words:
        assert words in messages[0]
        assert caught[0].filename == __file__


@pytest.mark.parametrize("shape", [[None], tf.TensorShape(None)], ids=str)
def test_a_variable_of_unknown_size_is_refused(shape):
    variable = tf.Variable(np.zeros(3, np.float32), shape=shape)
    with pytest.raises(ValueError, match="must be fully defined. Received: 'Variable"):
        HierarchicalRNN().apply([tf.ones(3)], [variable])


def test_a_model_of_tf_keras_is_told_from_one_of_keras():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(2,))])
    with pytest.raises(TypeError, match="Keras 3.*Received: a model of tf_keras"):
        model.compile(HierarchicalRNN(), "mse")


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(initial_learning_rate=0.0), ValueError, "positive number or a range"),
        (dict(initial_learning_rate=-1e-3), ValueError, r"Received: .*-0\.001"),
        (dict(initial_learning_rate=(1e-2, 1e-3)), ValueError, "low <= high"),
        (dict(initial_learning_rate=(0.0, 1e-3)), ValueError, "positive"),
        (dict(initial_learning_rate=(1e-3,)), ValueError, "of two"),
        (dict(initial_learning_rate=(1, 2, 3)), ValueError, "of two"),
        (dict(initial_learning_rate=float("nan")), ValueError, "positive"),
        (dict(initial_learning_rate=float("inf")), ValueError, "positive"),
        (dict(initial_learning_rate="fast"), ValueError, "Received: .*'fast'"),
        (dict(initial_learning_rate=True), ValueError, "Received: .*True"),
        (dict(weights="no such name"), ValueError, "Shipped names: "),
        (dict(weights="/no/such/file.npz"), ValueError, "existing .npz file"),
        (dict(weights=3.5), TypeError, "Received: 3.5 of type float"),
        (dict(weights={"name": "x"}), ValueError, "have the keys"),
        (dict(learning_rate="fast"), ValueError, "learning_rate"),
        (dict(clipnorm=1.0, clipvalue=1.0), ValueError, "Only one of"),
        (dict(gradient_accumulation_steps=1), ValueError, ">= 2"),
        (dict(use_ema=True, ema_momentum=2.0), ValueError, "ema_momentum"),
        (dict(seed="abc"), ValueError, "`seed` must be an integer.*Received: .*'abc'"),
        (dict(seed=True), ValueError, "Received: .*True"),
        (dict(seed=-1), ValueError, "of 0 or more"),
        (dict(unknown=1), ValueError, "unknown"),
        (dict(jit_compile="yes"), ValueError, "True, False or 'auto'.*Received: .*yes"),
        (dict(jit_compile=1), ValueError, "must be True, False or 'auto'"),
        (dict(state_dtype="float16"), ValueError, "Received: state_dtype='float16'"),
        (dict(state_dtype=None), ValueError, "must be 'float32' or 'bfloat16'"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        HierarchicalRNN(**arguments)


def test_central_storage_is_refused():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with strategy.scope(), pytest.raises(ValueError, match="but CentralStorage"):
        HierarchicalRNN()


def test_all_updates_may_have_been_made():
    assert checked_total_steps(8, done=8) == 8
    with pytest.raises(ValueError, match="made already, 9. Received: total_steps=8"):
        checked_total_steps(8, done=9)


@pytest.mark.parametrize("dtype", ["complex64", "int32", "bool"])
def test_only_real_floats_are_trained(dtype):
    optimizer = HierarchicalRNN()
    variables = [tf.Variable([1.0]), tf.Variable(tf.zeros(3, dtype))]
    with pytest.raises(TypeError, match=f"real floating-point.*dtype {dtype}"):
        optimizer.build(variables)
    # Nothing was built, so that good variables still can be.
    optimizer.build(variables[:1])
