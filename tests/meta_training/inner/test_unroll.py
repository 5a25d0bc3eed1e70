"""The unroll where no golden data reach: cutting off, clipping, counting, restarts."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.rule.config import Config
from meta_training.inner.meta_objectives import meta_objective, step_weights
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import GlobalLearningRate, HierarchicalRule, fresh_trained
from meta_training.tasks import rescale, sparse_gradient
from meta_training.tasks.base import Task
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.released.classifiers import FullyConnected
from tests.arrays import assert_close
from tests.meta_training.outer.tiny_runs import windows_of

TRAJECTORIES = TrajectoryConfig(**windows_of(6))
META_PARAMETERS = {
    name: tf.constant(value)
    for name, value in load_weights("bootstrap-v1").meta_parameters.items()
}


@dataclasses.dataclass(frozen=True)
class Cliff(Task):
    """x^2, and not finite from the third evaluation on: the start walks off a cliff."""

    edge: float = 0.0
    parameter_shapes = ((3,),)

    def sample_parameters(self, generator):
        return [np.ones(3, np.float32)]

    def objective(self, parameters, instance):
        x = parameters[0]
        value = tf.reduce_sum(x**2, axis=-1)
        return tf.where(x[:, 0] < self.edge, value * float("inf") * 0.0, value)


@dataclasses.dataclass(frozen=True)
class Parabola(Task):
    """c x^2 that starts at `first`; a step of rate 1.5 multiplies it by (1 - 3c)^2."""

    first: float
    curvature: float
    parameter_shapes = ((1,),)

    def sample_parameters(self, generator):
        return [np.full(1, np.sqrt(self.first / self.curvature), np.float32)]

    def objective(self, parameters, instance):
        return self.curvature * parameters[0][:, 0] ** 2


def first_carry(batch, optimizer, weights=None):
    return Trajectories(batch, optimizer, TRAJECTORIES, 0, weights).advance(0)


def unrolled(tasks, weights=None, **options):
    """Window and meta-gradient of a window of 6 steps."""
    batch = ProblemBatch(tasks, 4)
    carry = first_carry(batch, HierarchicalRule(), weights)
    unroll = Unroll(batch, HierarchicalRule(), UnrollConfig(max_steps=6, **options))
    return run(unroll.run_and_differentiate, META_PARAMETERS, carry)


def run(method, meta_parameters, carry, steps=6):
    """What a method of an `Unroll`, compiled, makes of a window."""
    function = tf.function(method, autograph=False)
    return function(meta_parameters, carry, tf.constant(steps), tf.constant(0))


@pytest.mark.parametrize(
    "attention, second_derivatives", [(False, True), (True, False)]
)
def test_the_second_loop_is_backpropagation_through_the_first(
    attention, second_derivatives
):
    """Beside one tape over all steps: minibatches, objective rows, noise, zeroing."""
    network = FullyConnected(3, (4,), rows=20, batch_size=6)
    tasks = [Quadratic(4, noise_stdev=0.5), network, sparse_gradient(network, 0.5)]
    tasks += [rescale(Quadratic(3), 4.0)]
    rule = HierarchicalRule(Config(attention=attention))
    meta_parameters = {
        name: tf.constant(value)
        for name, value in fresh_trained(rule, 0).meta_parameters.items()
    }
    batch = ProblemBatch(tasks, 4, objective_rows=7)
    carry = first_carry(batch, rule)
    options = UnrollConfig(max_steps=6, second_derivatives=second_derivatives)
    differentiate = Unroll(batch, rule, options).run_and_differentiate
    window, found = run(differentiate, meta_parameters, carry, 4)

    with tf.GradientTape() as tape:
        tape.watch(meta_parameters)
        values, attended = carry.inner.values, carry.inner.values
        rates = carry.inner.state.log_learning_rate
        state = rule.initial_state(batch.layout, meta_parameters, rates, values)
        objectives = []
        for step in range(4):
            draws = batch.draw(tf.constant(0), tf.constant(step))
            points = values, attended if attention else values, carry.inverse_scale
            evaluation = batch.evaluate(*points, carry.instances, draws)
            objectives.append(evaluation.objectives)
            gradients = evaluation.gradients
            if not second_derivatives:
                gradients = tf.stop_gradient(gradients)
            arguments = (values, gradients, state, batch.layout, meta_parameters)
            update = rule.update(*arguments)
            values, state = update.values, update.state
            attended = update.attended_values if attention else values
        objectives = tf.stack(objectives)
        first = tf.stop_gradient(objectives[0])
        logarithms = meta_objective("log").function(objectives, first)
        # As released, the first one counts twice.
        of_problem = tf.reduce_mean(tf.concat([logarithms[:1], logarithms], 0), axis=0)
        loss = tf.reduce_sum(carry.weights * of_problem)
    np.testing.assert_allclose(window.objectives[:4], objectives, rtol=1e-4)
    wanted = tape.gradient(loss, meta_parameters, unconnected_gradients="zero")
    for name, value in wanted.items():
        atol = 2e-3 * max(np.abs(value).max(), 1e-5)
        assert_close(found[name], value, atol=atol, where=name)


def test_a_diverging_task_is_cut_off_and_leaves_the_others_alone():
    falling = Cliff(edge=0.999999)
    window, gradient = unrolled([Quadratic(4), falling], weights=[1, 1])
    np.testing.assert_array_equal(window.alive, [1, 0])
    alone, alone_gradient = unrolled([Quadratic(4)])
    assert np.all(np.isfinite(window.losses))
    np.testing.assert_allclose(window.losses[0], alone.losses[0], rtol=1e-5)
    # The cut-off task is alive at its first step only, which no update precedes: its
    # loss does not depend on the meta-parameters.
    for name, value in gradient.items():
        wanted = 0.5 * np.asarray(alone_gradient[name])
        assert_close(value, wanted, 1e-4, 1e-6 * max(np.abs(wanted).max(), 1e-3))
    # What is cut off counts as the constant of the bound.
    assert window.losses[1] > 15
    for part in tf.nest.flatten(window.inner):
        assert np.all(np.isfinite(part))


def test_growth_beyond_the_bound_cuts_off_at_that_very_step():
    # The bound is so many times 1 + the size of the first objective, for each its own.
    bound = 6.0
    cases = [
        # A large start that falls stays alive.
        (Parabola(100.0, 0.5), [100, 25, 6.25, 1.5625, 0.390625, 0.09765625], 6),
        # Beyond 606. What is cut off gets no gradient, so it stays where it is.
        (Parabola(100.0, 1.0), [100, 400, 1600, 1600, 1600, 1600], 2),
        # Beyond 9: neither 6 nor 6 times the start of 0.5 is the bound.
        (Parabola(0.5, 1.0), [0.5, 2, 8, 32, 32, 32], 3),
        # Below -606: the bound is one of size.
        (Parabola(-100.0, -1.0), [-100, -1600, -1600, -1600, -1600, -1600], 1),
    ]
    tasks, wanted, steps_alive = zip(*cases, strict=True)
    batch = ProblemBatch(tasks, 4)
    optimizer = GlobalLearningRate(1.5)
    carry = first_carry(batch, optimizer)
    options = dict(meta_objective="relative", divergence_bound=bound)
    unroll = Unroll(batch, optimizer, UnrollConfig(max_steps=6, **options))
    window = run(unroll.run, optimizer.initial_meta_parameters(), carry)
    np.testing.assert_array_equal(batch.problem_task, range(len(tasks)))
    np.testing.assert_allclose(np.transpose(window.objectives), wanted, rtol=1e-4)
    np.testing.assert_array_equal(window.alive, [1, 0, 0, 0])
    for loss, objectives, count in zip(window.losses, wanted, steps_alive, strict=True):
        values = (np.array(objectives) - objectives[0]) / abs(objectives[0])
        # From that step on it counts as what stands at the bound, from a start of 1.
        values[count:] = bound - 1
        np.testing.assert_allclose(loss, np.mean(values), rtol=1e-4)


def slope_by_hand(parabola, rate, bound, weight, second_derivatives, steps=6):
    """The slope in log(rate) of a window of gradient descent, loop by loop in NumPy."""
    values = [np.sqrt(parabola.first / parabola.curvature)]
    for _ in range(steps):
        values.append(values[-1] * (1 - 2 * rate * parabola.curvature))
    start = parabola.first + 1e-6
    # The released log objective counts the first one twice.
    counts = np.array([2.0, *[1.0] * (steps - 1)]) / (steps + 1)
    slope = flow = 0.0
    clipped = 0
    for value, count in zip(values[-2::-1], counts[::-1], strict=True):
        gradient = 2 * parabola.curvature * value
        slope -= rate * gradient * flow
        if second_derivatives:
            flow *= 1 - 2 * rate * parabola.curvature
        ratio = parabola.curvature * value**2 / start + 1e-6
        flow += weight * count * gradient / (start * ratio)
        clipped += abs(flow) > bound * weight
        flow = np.clip(flow, -bound * weight, bound * weight)
    return slope, clipped


# 0.06 is that of the preset `default`.
@pytest.mark.parametrize("second_derivatives", [False, True])
@pytest.mark.parametrize("bound", [0.06, 1e6])
def test_clipping_through_time_bounds_what_flows_back(bound, second_derivatives):
    """Of two tasks 0.06 clips one at every step and the other at some."""
    tasks, rate, weights = [Parabola(1.0, 2.0), Parabola(300.0, 0.7)], 0.1, (0.25, 0.75)
    optimizer = GlobalLearningRate(rate)
    batch = ProblemBatch(tasks, 4)
    carry = first_carry(batch, optimizer, weights)
    options = dict(clip_through_time=bound, second_derivatives=second_derivatives)
    unroll = Unroll(batch, optimizer, UnrollConfig(max_steps=6, **options))
    meta_parameters = {"log_learning_rate": tf.constant(np.log(rate), tf.float32)}
    _, gradient = run(unroll.run_and_differentiate, meta_parameters, carry)
    expected = [
        slope_by_hand(task, rate, bound, weight, second_derivatives)
        for task, weight in zip(tasks, weights, strict=True)
    ]
    slopes, clipped = zip(*expected, strict=True)
    if bound == 0.06:
        assert clipped[0] == 6 and 0 < clipped[1] < 6
    else:
        assert clipped == (0, 0)
    np.testing.assert_allclose(gradient["log_learning_rate"], sum(slopes), rtol=1e-4)


@pytest.mark.slow
def test_the_clip_is_relative_to_a_tasks_weight():
    """Weights of 1 to 3 scale the gradient of each task, clipped or not."""
    tasks = [Quadratic(4), Quadratic(3)]
    parts = [
        unrolled(tasks, weights=weights, clip_through_time=0.01)[1]
        for weights in ((1, 0), (0, 1), (1, 3))
    ]
    for name in parts[0]:
        first, second, both = (np.asarray(part[name]) for part in parts)
        wanted = 0.25 * first + 0.75 * second
        assert_close(both, wanted, 1e-3, 1e-6 * max(np.abs(wanted).max(), 1e-3))


def test_corrected_counting_sees_where_the_last_update_led():
    released, _ = unrolled([Quadratic(4)])
    corrected, gradient = unrolled([Quadratic(4)], counting="corrected")
    # The state handed on is the same: six updates.
    assert_close(corrected.inner, released.inner, rtol=1e-5, atol=1e-6)
    objectives = np.asarray(corrected.objectives)[:, 0]
    assert objectives.shape == (7,)
    assert_close(objectives[:6], np.asarray(released.objectives)[:, 0], rtol=1e-5)
    log = meta_objective("log").function
    wanted = np.mean(log(objectives[1:], objectives[0]))
    np.testing.assert_allclose(corrected.losses[0], wanted, rtol=1e-5)
    assert any(np.any(value) for value in gradient.values())


@pytest.mark.parametrize(
    "name, counting, wanted",
    [
        ("log", "released", [2, 1, 1, 0]),
        ("linear", "released", [1, 1, 1, 0]),
        ("log", "corrected", [0, 1, 1, 0]),
    ],
)
def test_step_weights(name, counting, wanted):
    weights = step_weights(4, tf.constant(3), meta_objective(name), counting)
    np.testing.assert_allclose(weights, np.array(wanted) / sum(wanted), rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"meta_objective": "none"}, "must be one of"),
        ({"counting": "twice"}, "counting must be one of released, corrected"),
        ({"clip_through_time": 0.0}, "must be a finite number, above 0"),
        ({"max_steps": 0}, "max_steps must be .* 1 or more"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UnrollConfig(**{"max_steps": 5, **options})
