"""What holds for every trainable optimizer."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule.layout import Layout, pack, unpack
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import UnrollConfig
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from tests.arrays import assert_close
from tests.meta_training.optimizers.steps import (
    LAYOUT,
    SHAPES,
    SMALL,
    random_gradients,
    trajectory,
)
from tests.meta_training.outer.tiny_runs import windows_of


@pytest.mark.parametrize("name", SMALL)
def test_a_problem_axis_is_separate_runs(name):
    optimizer = SMALL[name]
    meta = [optimizer.initial_meta_parameters(seed) for seed in (0, 1)]
    generator = np.random.default_rng(2)
    meta[1] = {
        key: value + 0.2 * generator.normal(size=value.shape).astype(np.float32)
        for key, value in meta[1].items()
    }
    gradients = random_gradients(4)
    both = {key: np.stack([part[key] for part in meta]) for key in meta[0]}
    found, state = trajectory(optimizer, both, gradients)
    log_rates = optimizer.log_learning_rates(state, LAYOUT, both)
    log_rates = np.broadcast_to(log_rates, (LAYOUT.num_blocks, 2))
    for problem, tensors in enumerate([slice(0, 2), slice(2, 3)]):
        layout = Layout.from_shapes(SHAPES[tensors], 2)
        alone, own_state = trajectory(
            optimizer, meta[problem], [g[tensors] for g in gradients], layout
        )
        ours = [parts[tensors] for parts in found]
        assert_close(ours, alone, rtol=2e-4, atol=1e-5)
        own = optimizer.log_learning_rates(own_state, layout, meta[problem])
        first = LAYOUT.first_blocks[tensors.start]
        own = np.broadcast_to(own, (layout.num_blocks, 2))[0]
        np.testing.assert_allclose(log_rates[first], own, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_not_active_stays(name):
    optimizer = SMALL[name]
    meta = optimizer.initial_meta_parameters(0)
    gradient, bad = random_gradients(2)
    values, state = trajectory(optimizer, meta, [gradient])
    bad[1][0, 0] = np.nan
    active = tf.constant([1.0, 0.0, 1.0])
    step = optimizer.compute_step(pack(bad, LAYOUT), state, LAYOUT, meta, active)
    moves = [np.asarray(part) for part in unpack(step.step, LAYOUT)]
    assert np.all(moves[1] == 0) and np.all(moves[0] != 0) and np.all(moves[2] != 0)
    blocks = LAYOUT.blocks_of(1)
    for key, new, old in zip(state._fields, step.state, state, strict=True):
        level = optimizer.state_levels[key]
        if level == "parameter":
            np.testing.assert_array_equal(new[:, blocks], old[:, blocks])
        elif level == "tensor":
            np.testing.assert_array_equal(new[..., 1], old[..., 1])


@pytest.mark.parametrize("name", [name for name in SMALL if name != "hierarchical_rnn"])
def test_the_meta_gradient_is_that_of_finite_differences(name):
    optimizer = SMALL[name]
    batch = ProblemBatch([Quadratic(3), Bowl(5.0)], 3)
    rates = dict(low_learning_rate=0.5, high_learning_rate=1.0)
    options = TrajectoryConfig(**windows_of(4), **rates)
    carry = Trajectories(batch, optimizer, options, 0).advance(0)
    unroll = Unroll(batch, optimizer, UnrollConfig(max_steps=4))
    steps, seed = tf.constant(4), tf.constant(0)
    meta = {
        key: tf.constant(value)
        for key, value in optimizer.initial_meta_parameters(0).items()
    }
    window, gradient = tf.function(unroll.run_and_differentiate, autograph=False)(
        meta, carry, steps, seed
    )
    run = tf.function(unroll.run, autograph=False)
    # Along a random direction of each array by itself: along the gradient that was
    # found, an array that it leaves out would not be seen.
    generator = np.random.default_rng(0)
    size = 0.03
    assert gradient.keys() == meta.keys()
    for key, value in meta.items():
        direction = generator.standard_normal(value.shape)
        direction = np.float32(direction / np.linalg.norm(direction))
        up, down = (
            run({**meta, key: value + sign * size * direction}, carry, steps, seed)
            for sign in (1, -1)
        )
        slope = float(np.sum(carry.weights * (up.losses - down.losses))) / (2 * size)
        # Far above the tolerance, so that no gradient at all would not do.
        assert abs(slope) > 1e-4, key
        np.testing.assert_allclose(
            np.sum(gradient[key] * direction), slope, rtol=0.01, atol=5e-6, err_msg=key
        )
    assert np.all(np.isfinite(window.mean_log_learning_rate))
