"""The stacked baselines against Keras's own classes, step by step."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.runs.baselines import warm_up_steps
from tests.arrays import assert_close
from tests.conftest import output_of
from tests.meta_training.runs.step_by_step import NETWORK, STEPS, train_with_keras

optimizers = keras.optimizers


def cosine(rate):
    return optimizers.schedules.CosineDecay(rate, STEPS)


def warm_up_and_cosine(rate):
    warm_up = warm_up_steps(STEPS)
    return optimizers.schedules.CosineDecay(
        0.0, STEPS - warm_up, warmup_target=rate, warmup_steps=warm_up
    )


# The class of Keras, its schedule and other settings.
KERAS = {
    "Adam": (optimizers.Adam, float, {}),
    "Adam cosine": (optimizers.Adam, cosine, {}),
    "AdamW cosine": (optimizers.AdamW, cosine, {}),
    "NAdamW": (optimizers.Nadam, warm_up_and_cosine, {"weight_decay": 0.004}),
    "NAdamW constant": (optimizers.Nadam, float, {"weight_decay": 0.004}),
    "Schedule-free AdamW": (optimizers.ScheduleFreeAdamW, float, {}),
    # `NETWORK` has three matrices; the last one gives the outputs.
    "Muon cosine": (optimizers.Muon, cosine, {"exclude_layers": ["tensor_4"]}),
    "RMSprop": (optimizers.RMSprop, float, {}),
    "SGD momentum": (optimizers.SGD, float, {"momentum": 0.9}),
}


@pytest.fixture(scope="module")
def draws():
    return draw_runs([NETWORK], [3, 4], STEPS)


@pytest.mark.parametrize("name", [name for name in BASELINES if "free" not in name])
def test_baselines_are_those_of_keras(name, draws):
    rates = np.array([1e-3, 3e-2], np.float32)
    loop = TrainingLoop(NETWORK, BASELINES[name][0], [0, 1], draws)
    arguments = {"learning_rate": rates, "total_steps": np.int32(STEPS)}
    runs = loop(np.arange(STEPS + 1), arguments)
    for run, rate in enumerate(rates):
        keras_class, schedule, settings = KERAS[name]
        optimizer = keras_class(schedule(float(rate)), **settings)
        values, losses = train_with_keras(optimizer, draws, run, STEPS)
        # The quintic of Muon magnifies rounding errors.
        tolerance = 1e-3 if "Muon" in name else 1e-5
        assert_close(runs.losses[:, run], np.array(losses), tolerance, tolerance)
        assert_close([ours[run] for ours in runs.values], values, tolerance, tolerance)


@pytest.mark.parametrize("name", BASELINES)
def test_default_rates_are_those_of_keras(name):
    default = KERAS[name][0]()
    assert BASELINES[name][1] == pytest.approx(float(default.learning_rate))


_IN_JAX = """
import json, sys
import keras
variable = keras.Variable([1.0, -2.0])
optimizer = keras.optimizers.ScheduleFreeAdamW(0.1)
optimizer.build([variable])
found = []
for gradient in json.loads(sys.argv[1]):
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    y, z = variable.numpy(), optimizer._momentums[0].numpy()
    found.append([y.tolist(), ((y - 0.1 * z) / 0.9).tolist()])
print(json.dumps(found))
"""


def test_schedule_free_adamw_is_that_of_keras_on_jax():
    """With TensorFlow, Keras 3.15 reads z after its step where it means before it."""
    pytest.importorskip("jax")
    gradients = np.random.default_rng(0).normal(0.3, 1, (30, 2)).tolist()
    output = output_of("-c", _IN_JAX, json.dumps(gradients), KERAS_BACKEND="jax")
    expected = json.loads(output.splitlines()[-1])
    schedule_free, _ = BASELINES["Schedule-free AdamW"]
    values = [tf.constant([[1.0, -2.0]])]
    state = schedule_free.start(values, {})
    rates = {"learning_rate": tf.constant([0.1])}
    for step, (gradient, wanted) in enumerate(zip(gradients, expected, strict=True)):
        gradient = [tf.constant([gradient])]
        arguments = (values, gradient, state, tf.constant(step), rates)
        values, state = schedule_free.step(*arguments)
        (judged,) = schedule_free.evaluation_values(values, state)
        assert_close([values[0][0], judged[0]], wanted, rtol=1e-5, atol=1e-6)


def test_nadam_goes_on_where_its_product_of_decays_is_cut_off():
    theirs, variable = optimizers.Nadam(0.01, weight_decay=0.004), keras.Variable(1.0)
    ours, values = BASELINES["NAdamW constant"][0], [tf.ones([1, 1])]
    state, rates = ours.start(values, {}), {"learning_rate": tf.constant([0.01])}
    for step in range(280):
        gradient = tf.fill([1, 1], np.float32(0.5 + np.cos(step)))
        theirs.apply([gradient[0, 0]], [variable])
        arguments = (values, [gradient], state, tf.constant(step), rates)
        values, state = ours.step(*arguments)
    np.testing.assert_allclose(values[0][0, 0], float(variable), rtol=1e-4)
