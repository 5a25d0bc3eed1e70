"""The stacked baselines against Keras's own classes, step by step."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.runs.baselines import warm_up_steps
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
        np.testing.assert_allclose(
            runs.losses[:, run], losses, rtol=tolerance, atol=tolerance
        )
        for ours, theirs in zip(runs.values, values, strict=True):
            np.testing.assert_allclose(
                ours[run], theirs, rtol=tolerance, atol=tolerance
            )


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
for gradient in json.load(sys.stdin):
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    y, z = variable.numpy(), optimizer._momentums[0].numpy()
    found.append([y.tolist(), ((y - 0.1 * z) / 0.9).tolist()])
print(json.dumps(found))
"""


def test_schedule_free_adamw_is_that_of_keras_on_jax():
    """With TensorFlow, Keras 3.15 reads z after its step where it means before it."""
    pytest.importorskip("jax")
    gradients = np.random.default_rng(0).normal(0.3, 1, (30, 2)).tolist()
    keras_run = subprocess.run(
        [sys.executable, "-c", _IN_JAX],
        input=json.dumps(gradients),
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    schedule_free, _ = BASELINES["Schedule-free AdamW"]
    values = [tf.constant([[1.0, -2.0]])]
    state = schedule_free.start(values, {})
    rates = {"learning_rate": tf.constant([0.1])}
    expected = json.loads(keras_run.stdout.splitlines()[-1])
    for iteration, (gradient, (y, x)) in enumerate(
        zip(gradients, expected, strict=True)
    ):
        values, state = schedule_free.step(
            values, [tf.constant([gradient])], state, tf.constant(iteration), rates
        )
        (judged,) = schedule_free.evaluation_values(values, state)
        np.testing.assert_allclose(values[0][0], y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(judged[0], x, rtol=1e-5, atol=1e-6)


def test_nadam_goes_on_where_its_product_of_decays_is_cut_off():
    nadam = optimizers.Nadam(0.01, weight_decay=0.004)
    variable = keras.Variable(1.0)
    values = [tf.ones([1, 1])]
    state = BASELINES["NAdamW constant"][0].start(values, {})
    for iteration in range(280):
        gradient = 0.5 + np.cos(iteration)
        nadam.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        values, state = BASELINES["NAdamW constant"][0].step(
            values,
            [tf.fill([1, 1], np.float32(gradient))],
            state,
            tf.constant(iteration),
            {"learning_rate": tf.constant([0.01])},
        )
    np.testing.assert_allclose(values[0][0, 0], float(variable), rtol=1e-4)
