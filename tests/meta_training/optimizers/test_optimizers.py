"""The trainable optimizers against computations of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config
from learned_optimizer.rule.layout import Layout, pack, unpack
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import (
    CoordinatewiseRNN,
    GlobalLearningRate,
    HierarchicalRule,
    LearningRateSchedule,
    TrainableAdam,
)
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.released.quadratics import Quadratic

# Small, and with rates at which a few steps make a difference.
SMALL = {
    "coordinatewise_rnn": CoordinatewiseRNN((4, 3), zero_learning_rate_weights=False),
    "coordinatewise_rnn, lstm": CoordinatewiseRNN(
        (3, 4), "lstm", zero_learning_rate_weights=False
    ),
    "global_learning_rate": GlobalLearningRate(0.1),
    "hierarchical_rnn": HierarchicalRule(Config(level_sizes=(4, 3, 3))),
    "learning_rate_schedule": LearningRateSchedule(0.1, num_steps=3),
    "trainable_adam": TrainableAdam(0.1, beta_2=0.9, epsilon=0.3),
}
SHAPES = [(3,), (2, 2), (5,)]
LAYOUT = Layout.from_shapes(SHAPES, 2, problems=[0, 0, 1])


def random_gradients(steps, shapes=SHAPES, seed=0):
    """A list of tensors for each step, some elements small."""
    generator = np.random.default_rng(seed)
    return [
        [
            (10.0 ** generator.integers(-2, 2) * generator.normal(size=shape)).astype(
                np.float32
            )
            for shape in shapes
        ]
        for _ in range(steps)
    ]


def trajectory(optimizer, meta_parameters, gradients, layout=LAYOUT, rate=0.01):
    """Tensors after each step from ones, and the last state."""
    values = pack([np.ones(shape, np.float32) for shape in layout.shapes], layout)
    state = optimizer.initial_state(layout, meta_parameters, np.log(rate), values)
    found = []
    for gradient in gradients:
        values, _, state = optimizer.update(
            values, pack(gradient, layout), state, layout, meta_parameters
        )
        found.append([np.asarray(tensor) for tensor in unpack(values, layout)])
    return found, state


def with_keras(optimizer, gradients):
    """The same by a Keras optimizer."""
    variables = [keras.Variable(np.ones(shape, np.float32)) for shape in SHAPES]
    found = []
    for gradient in gradients:
        optimizer.apply([tf.constant(part) for part in gradient], variables)
        found.append([variable.value.numpy() for variable in variables])
    return found


def assert_close(found, wanted, **tolerance):
    for parts, wanted_parts in zip(found, wanted, strict=True):
        for part, wanted_part in zip(parts, wanted_parts, strict=True):
            np.testing.assert_allclose(part, wanted_part, **tolerance)


class TestTrainableAdam:
    """Against Keras, and against its formula where the two differ."""

    def test_takes_the_steps_of_keras(self):
        optimizer = TrainableAdam(0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-8)
        gradients = random_gradients(12)
        found, state = trajectory(
            optimizer, optimizer.initial_meta_parameters(), gradients
        )
        adam = keras.optimizers.Adam(0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-8)
        assert_close(found, with_keras(adam, gradients), rtol=1e-5, atol=1e-6)
        # The released second moment stays 0.
        second = np.zeros(5)
        for gradient in gradients:
            second = 0.99 * second + 0.01 * gradient[2].astype(float) ** 2
        moment = unpack(state.second_moment[0], LAYOUT)[2]
        np.testing.assert_allclose(moment, second, rtol=1e-5)
        assert np.all(np.asarray(moment) > 0)

    def test_has_a_floor_under_the_root(self):
        optimizer = TrainableAdam(0.1, epsilon=1e-6)
        gradient = [np.full(shape, 1e-5, np.float32) for shape in SHAPES]
        found, _ = trajectory(
            optimizer, optimizer.initial_meta_parameters(), [gradient]
        )
        step = 0.1 * 1e-5 / (np.sqrt(1e-10 + 1e-10) + 1e-6 + 1e-10)
        np.testing.assert_allclose(found[0][0], 1 - step, rtol=1e-5)


def test_global_learning_rate_is_gradient_descent():
    optimizer = GlobalLearningRate(0.03)
    gradients = random_gradients(5)
    found, _ = trajectory(optimizer, optimizer.initial_meta_parameters(), gradients)
    assert_close(found, with_keras(keras.optimizers.SGD(0.03), gradients), rtol=1e-5)


def test_schedule_keeps_its_last_rate():
    rates = np.array([0.5, 0.02, 0.1], np.float32)
    gradients = random_gradients(6)
    found, state = trajectory(
        LearningRateSchedule(num_steps=3),
        {"log_learning_rates": np.log(rates)},
        gradients,
    )
    values = np.ones(5)
    for step, rate in enumerate([0.5, 0.02, 0.1, 0.1, 0.1, 0.1]):
        values = values - rate * gradients[step][2]
        np.testing.assert_allclose(found[step][2], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.steps_taken, np.full((1, 3), 6))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def one_coordinate(optimizer, meta, gradients, rate):
    """Positions of one parameter from 1, in float64, one number at a time."""
    sizes = optimizer.cell_sizes
    start = list(meta["start"][0])
    states = []
    for size in sizes:
        count = size if optimizer.cell == "gru" else 2 * size
        states.append(np.array(start[:count]))
        start = start[count:]
    mean_square, decay, position, found = 1.0, 1.0, 1.0, []
    for gradient in gradients:
        mean_square = (1 - decay) * (gradient**2 + 1e-12) + decay * mean_square
        output = np.array([np.arcsinh(gradient / np.sqrt(mean_square + 1e-16))])
        for i, size in enumerate(sizes):
            if optimizer.cell == "gru":
                h = states[i]
                gates = logistic(
                    np.concatenate([output, h]) @ meta[f"cell_{i}_gates_kernel"]
                    + meta[f"cell_{i}_gates_bias"]
                )
                reset, keep = gates[:size], gates[size:]
                candidate = np.tanh(
                    np.concatenate([output, reset * h])
                    @ meta[f"cell_{i}_candidate_kernel"]
                    + meta[f"cell_{i}_candidate_bias"]
                )
                output = states[i] = keep * h + (1 - keep) * candidate
            else:
                c, h = states[i][:size], states[i][size:]
                into, new, forget, out = np.split(
                    np.concatenate([output, h]) @ meta[f"cell_{i}_kernel"]
                    + meta[f"cell_{i}_bias"],
                    4,
                )
                c = c * logistic(forget + 1) + logistic(into) * np.tanh(new)
                output = np.tanh(c) * logistic(out)
                states[i] = np.concatenate([c, output])
        readouts = {
            name: logistic((output @ meta[f"{name}_weights"] + meta[f"{name}_bias"])[0])
            for name in ("decay", "learning_rate")
            if f"{name}_bias" in meta
        }
        decay = readouts.get("decay", logistic(2.2))
        rate = rate * 2 * readouts.get("learning_rate", 0.5)
        position = position - rate * (output @ meta["direction_weights"])[0]
        found.append(position)
    return np.array(found)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("on", [True, False], ids=["switches on", "switches off"])
def test_coordinatewise_rnn_is_its_equations(cell, on):
    optimizer = CoordinatewiseRNN(
        (4, 3),
        cell,
        learnable_decay=on,
        dynamic_output_scale=on,
        zero_learning_rate_weights=False,
    )
    generator = np.random.default_rng(1)
    meta = {
        name: value + 0.3 * generator.normal(size=value.shape).astype(np.float32)
        for name, value in optimizer.initial_meta_parameters(0).items()
    }
    gradients = random_gradients(6)
    found, _ = trajectory(optimizer, meta, gradients, rate=0.05)
    meta = {name: value.astype(float) for name, value in meta.items()}
    for tensor, element in [(0, (1,)), (1, (1, 0)), (2, (4,))]:
        wanted = one_coordinate(
            optimizer, meta, [float(g[tensor][element]) for g in gradients], 0.05
        )
        ours = [parts[tensor][element] for parts in found]
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
        assert np.ptp(wanted) > 1e-3


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


def test_chunks_of_the_coordinatewise_rnn_are_the_whole():
    optimizer = SMALL["coordinatewise_rnn"]
    meta = optimizer.initial_meta_parameters(0)
    shapes = [(7,), (3, 5)]
    gradients = random_gradients(3, shapes)
    layouts = [Layout.from_shapes(shapes, 2, chunk) for chunk in (None, 3)]
    assert layouts[1].num_chunks > 1
    whole, chunked = (
        trajectory(optimizer, meta, gradients, layout)[0] for layout in layouts
    )
    assert_close(chunked, whole, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "hierarchical_rnn"])
def test_the_meta_gradient_is_that_of_finite_differences(name):
    optimizer = SMALL[name]
    batch = ProblemBatch([Quadratic(3), Bowl(5.0)], 3)
    options = TrajectoryConfig(
        min_window_steps=4,
        mean_window_steps=4,
        max_window_steps=4,
        low_learning_rate=0.5,
        high_learning_rate=1.0,
    )
    trajectories = Trajectories(batch, optimizer, options, 0)
    carry = trajectories.advance(0)
    trajectories.close()
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
