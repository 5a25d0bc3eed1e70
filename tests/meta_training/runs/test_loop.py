"""The loop of stacked runs: what is drawn once a draw, and what runs share."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.runs import loop as loop_module
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron
from tests.arrays import assert_close


def test_noise_and_zeros_are_drawn_once_a_draw():
    """Each task's own, of its own size."""
    noisy = Quadratic(200, noise_stdev=0.3, gradient_zero_probability=0.2)
    tasks, seeds = [noisy, Quadratic(200)], [0, 1, 2]
    draws = draw_runs(tasks, seeds, 1)
    order = [0, 1, 2, 3, 4, 5] * 2
    sgd = BASELINES["SGD momentum"][0]
    loop = TrainingLoop(tasks[0], sgd, order, draws)
    runs = loop([0, 1], {"learning_rate": np.full(12, 1.0, np.float32)})
    start = draws.start[0]
    moves = start[order] - runs.values[0]
    np.testing.assert_array_equal(moves[:6], moves[6:])
    with tf.GradientTape() as tape:
        values = tf.convert_to_tensor(start)
        tape.watch(values)
        instance = {name: tf.constant(a) for name, a in draws.instance.items()}
        loss = tf.reduce_sum(tasks[0].objective([values], instance))
    disturbance = (moves[:6] - tape.gradient(loss, values).numpy()).reshape(6, -1)
    zero = moves[:6].reshape(6, -1) == 0
    assert 0.15 < zero[:3].mean() < 0.25
    np.testing.assert_allclose(disturbance[:3][~zero[:3]].std(), 0.3, rtol=0.1)
    assert not np.array_equal(zero[0], zero[1])
    # The task beside it has neither.
    np.testing.assert_allclose(disturbance[3:], 0, atol=2e-3)


@pytest.mark.parametrize("rows, size", [(10, 6), (1000, 3), (2000, 2), (5000, 1)])
def test_as_many_runs_at_once_as_fit(rows, size):
    assert loop_module.group_size(6, rows) == size


def test_large_instances_are_shared_by_runs(monkeypatch):
    task = Quadratic(5, noise_stdev=0.1)
    draws = draw_runs([task], [0, 1, 2], 4)
    optimizer = BASELINES["Adam"][0]
    arguments = {"learning_rate": np.repeat([1e-1, 1e-3], 3).astype(np.float32)}
    found = []
    for limit, shares in ((1e9, False), (0, True)):
        monkeypatch.setattr(loop_module, "_COPIED_BYTES", limit)
        loop = TrainingLoop(task, optimizer, [0, 1, 2, 0, 1, 2], draws)
        assert loop._shares_instances == shares
        found.append(loop([0, 1, 4], arguments))
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-5)
    np.testing.assert_allclose(found[0].values[0], found[1].values[0], rtol=1e-4)
    loop = TrainingLoop(task, optimizer, [2, 0], draws)
    assert not loop._shares_instances


def test_running_averages_are_those_of_keras():
    """A batch-normalised network against the same one of Keras's layers, by `evaluate`.

    The schedule-free optimizer is judged by statistics of all rows instead.
    """
    task = Perceptron(6, (7, 5), 3, "batch", rows=64, batch_size=16)
    steps = 30
    draws = draw_runs([task], [5], steps)
    inputs = hidden = keras.Input([6])
    for units in task.hidden_sizes:
        hidden = keras.layers.Dense(units, use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.Activation("relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    for variable, value in zip(model.trainable_variables, draws.start, strict=True):
        variable.assign(value[0])
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data, labels = draws.instance["data"][0], draws.instance["labels"][0]
    expected = [model.evaluate(data, labels, batch_size=64, verbose=0)]
    for (rows,) in draws.row_indices:
        model.train_on_batch(data[rows], labels[rows])
        expected.append(model.evaluate(data, labels, batch_size=64, verbose=0))
    arguments = {"learning_rate": np.array([0.01], np.float32)}
    runs = TrainingLoop(task, BASELINES["Adam"][0], [0], draws)(
        np.arange(steps + 1), arguments
    )
    np.testing.assert_allclose(runs.evaluation_losses[:, 0], expected, rtol=1e-4)
    assert np.all(np.abs(runs.losses - runs.evaluation_losses)[1:] > 1e-3)
    averages = [v for v in model.non_trainable_variables if "moving" in v.path]
    found = [ours[0] for ours in runs.averages]
    assert_close(found, averages, rtol=1e-4, atol=1e-5)

    schedule_free, _ = BASELINES["Schedule-free AdamW"]
    runs = TrainingLoop(task, schedule_free, [0], draws)([0, steps], arguments)
    np.testing.assert_array_equal(runs.evaluation_losses, runs.losses)
    variables = [*model.trainable_variables, *averages]
    for variable, value in zip(variables, [*runs.values, *runs.averages], strict=True):
        variable.assign(value[0])
    loss = model.evaluate(data, labels, batch_size=64, verbose=0)
    np.testing.assert_allclose(runs.losses[-1, 0], loss, rtol=1e-4)


def test_losses_are_recorded_on_the_rows_that_a_task_names(monkeypatch):
    task = Perceptron(6, (7,), 3, rows=64, batch_size=16)
    draws = draw_runs([task], [5], 1)
    monkeypatch.setattr(Perceptron, "recorded_rows", 20)
    arguments = {"learning_rate": np.array([0.01], np.float32)}
    runs = TrainingLoop(task, BASELINES["Adam"][0], [0], draws)([0, 1], arguments)
    instance = {
        name: array[:, :20] if name in task.row_arrays else array
        for name, array in draws.instance.items()
    }
    expected = task.objective(draws.start, instance)
    np.testing.assert_allclose(runs.losses[0], expected, rtol=1e-5)
