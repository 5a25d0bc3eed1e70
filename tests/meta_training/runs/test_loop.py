"""The loop of stacked runs: what is drawn once a draw, and what runs share."""

import numpy as np
import tensorflow as tf

from meta_training.runs import BASELINES, TrainingLoop, draw_runs
from meta_training.runs import loop as loop_module
from meta_training.tasks.released.quadratics import Quadratic


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
