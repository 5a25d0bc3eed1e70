"""Persistent evolution strategies against their definition."""

import types

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config, load_weights
from meta_training.estimators import estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import UnrollConfig, Window
from meta_training.optimizers import HierarchicalRule
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from tests.arrays import assert_close
from tests.meta_training.outer.tiny_runs import windows_of

META_PARAMETERS = {
    name: tf.constant(value)
    for name, value in load_weights("bootstrap-v1").meta_parameters.items()
}
OPTIONS = UnrollConfig(max_steps=4)
TRAJECTORIES = TrajectoryConfig(**windows_of(4))


def pes_of(tasks, config=None, **settings):
    """The batch, the estimator, its program and the tasks' trajectories."""
    rule = HierarchicalRule(config or Config())
    batch = ProblemBatch(tasks, 4, replicas=2)
    pes = estimator("pes")(batch, rule, OPTIONS, **settings)
    estimate = tf.function(pes.estimate, autograph=False)
    return batch, pes, estimate, Trajectories(batch, rule, TRAJECTORIES, 0)


def test_pes_follows_its_definition_over_two_windows():
    tasks = [Quadratic(3), Bowl(5.0, noise_stdev=0.1), Quadratic(3)]
    _, pes, estimate, trajectories = pes_of(tasks, sigma=0.02)
    alone = ProblemBatch(tasks, 4)
    by_hand = Trajectories(alone, HierarchicalRule(), TRAJECTORIES, 0)
    run = tf.function(Unroll(alone, HierarchicalRule(), OPTIONS).run, autograph=False)
    # One task at a time, with +e and with -e, the plain unroll.
    start = by_hand.advance(0)
    shapes = {name: (3, *value.shape) for name, value in META_PARAMETERS.items()}
    accumulated = {name: np.zeros(shape) for name, shape in shapes.items()}
    state = pes.initial_state()
    inner = {(sign, task): start for sign in (1, -1) for task in range(3)}
    for number, seed in enumerate((11, 12)):
        carry = trajectories.advance(number)
        length = (tf.constant(4), tf.constant(seed))
        found = estimate(META_PARAMETERS, carry, state, *length)
        trajectories.take(found.window)
        state = found.state
        noise = pes.perturbations(tf.constant(seed))
        losses = np.zeros((2, 3))
        for row, sign in enumerate((1, -1)):
            for task in range(3):
                perturbed = {
                    name: value + sign * noise[name][task]
                    for name, value in META_PARAMETERS.items()
                }
                window = run(perturbed, inner[sign, task], *length)
                problem = int(np.flatnonzero(alone.problem_task == task)[0])
                losses[row, task] = window.losses[problem]
                inner[sign, task] = inner[sign, task]._replace(
                    inner=window.inner,
                    fresh=np.zeros(3, np.float32),
                    alive=window.alive,
                    initial_objective=window.initial_objective,
                )
        assert np.all(losses[0] != losses[1])
        for name, value in found.gradient.items():
            accumulated[name] += np.asarray(noise[name])
            slopes = (losses[0] - losses[1]) / (2 * 0.02**2) / 3
            wanted = np.tensordot(slopes, accumulated[name], axes=1)
            assert_close(value, wanted, 0.02, 0.01 * np.abs(wanted).max(), name)


def test_pes_is_right_in_expectation_for_a_linear_loss(monkeypatch):
    tasks = [Bowl(5.0)] * 4000
    batch, pes, *_ = pes_of(tasks, sigma=0.1)
    slope = np.linspace(-1, 1, 10).astype(np.float32)[:, None]

    def linear(meta_parameters, carry, num_steps, seed):
        losses = tf.einsum("pio,io->p", meta_parameters["direction_weights"], slope)
        return Window(None, tf.ones_like(losses), None, None, losses, None)

    monkeypatch.setattr(pes.unroll, "run", linear)
    fresh = np.zeros(batch.num_problems, np.float32)
    weights = np.full(batch.num_problems, 1 / batch.num_problems, "float32")
    carry = types.SimpleNamespace(fresh=fresh, weights=weights)
    found = pes.estimate(
        META_PARAMETERS, carry, pes.initial_state(), tf.constant(4), tf.constant(5)
    )
    gradient = np.asarray(found.gradient["direction_weights"])
    # Each element's standard error is about |slope| / sqrt(4000) = 0.03.
    np.testing.assert_allclose(gradient, slope, atol=0.15)
    others = np.asarray(found.gradient["tensor_gates_bias"])
    assert np.abs(others).max() < 0.15


def test_pes_forgets_the_perturbations_of_a_finished_trajectory():
    batch, pes, estimate, trajectories = pes_of([Bowl(5.0), Quadratic(3)], sigma=0.1)
    carry = trajectories.advance(0)
    state = {name: np.ones_like(v) for name, v in pes.initial_state().items()}
    fresh = (batch.problem_task == 1).astype(np.float32)
    carry = carry._replace(fresh=fresh)
    found = estimate(META_PARAMETERS, carry, state, tf.constant(4), tf.constant(7))
    noise = pes.perturbations(tf.constant(7))
    for name, value in found.state.items():
        np.testing.assert_allclose(value[0], 1 + noise[name][0], rtol=1e-6)
        np.testing.assert_allclose(value[1], noise[name][1], rtol=1e-6)


@pytest.mark.parametrize("cut_off", [[0], [1], [0, 1]])
def test_pes_takes_no_slope_from_a_pair_that_was_cut_off(cut_off):
    tasks = [Bowl(5.0), Quadratic(3), Quadratic(3)]
    batch, pes, estimate, trajectories = pes_of(tasks)
    window = (tf.constant(4), tf.constant(7))
    carry = trajectories.advance(0)
    found = estimate(META_PARAMETERS, carry, pes.initial_state(), *window)
    state = found.state
    trajectories.take(found.window)
    carry = trajectories.advance(1)
    pair = np.flatnonzero(batch.problem_task == 1)
    alive = np.ones(batch.num_problems, np.float32)
    alive[pair[cut_off]] = 0
    found = estimate(META_PARAMETERS, carry._replace(alive=alive), state, *window)
    # The bound stands for the loss of what was cut off: far from that of the other.
    losses = np.asarray(found.window.losses)
    assert np.all((losses > 10) == (alive == 0))
    # The same window, in which that task does not count.
    weights = np.where(batch.problem_task == 1, 0, carry.weights)
    wanted = estimate(META_PARAMETERS, carry._replace(weights=weights), state, *window)
    for name, value in wanted.gradient.items():
        assert_close(
            found.gradient[name], value, 1e-4, 1e-5 * np.abs(value).max(), name
        )
    assert np.any(np.asarray(wanted.gradient["direction_weights"]) != 0)


@pytest.mark.parametrize("learnable", [True, False])
def test_pes_leaves_start_vectors_that_are_not_learned(learnable):
    _, pes, *_ = pes_of([Bowl(5.0)], Config(learnable_start=learnable))
    for name, noise in pes.perturbations(tf.constant(3)).items():
        assert np.all(noise == 0) == (not learnable and name.endswith("_start")), name
