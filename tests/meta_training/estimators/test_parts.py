"""A window in parts against the same window in one piece."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.rule.config import Config
from meta_training.estimators import Estimate, InParts, compiled_estimator, estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.windows import Carry, InnerState, UnrollConfig, Window
from meta_training.optimizers import HierarchicalRule
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from meta_training.tasks.released.test_functions import Rosenbrock
from tests.arrays import assert_close, assert_equal
from tests.meta_training.outer.tiny_runs import windows_of

STEPS = 4
# Nothing is drawn within a window, which would depend on the parts.
TASKS = [Quadratic(3), Bowl(5.0), Quadratic(3), Rosenbrock()]
TASKS += [Quadratic(7), Quadratic(3), Bowl(5.0)]
# Some trajectories end with the first window and start again, the others go on.
OPTIONS = TrajectoryConfig(**windows_of(STEPS), mean_horizon=3 * STEPS)


def first_windows(count, name, parts, tasks=TASKS, attention=False):
    """The batch, and the starts and the estimates of the first windows of all tasks."""
    weights = load_weights("bootstrap-v1")
    config = Config(attention=True) if attention else weights.config
    optimizer = HierarchicalRule(config)
    values = weights.meta_parameters
    if attention:
        values = optimizer.initial_meta_parameters(seed=0)
    kind, options = estimator(name), UnrollConfig(max_steps=STEPS)
    batch = ProblemBatch(tasks, 4, kind.replicas, parts=parts)
    made, estimate = compiled_estimator(kind, batch, optimizer, options)
    assert isinstance(made, InParts) == (parts > 1)
    # No two tasks count alike.
    counts = 1 + np.arange(len(tasks))
    trajectories = Trajectories(batch, optimizer, OPTIONS, seed=3, weights=counts)
    starts, found = [], []
    state = made.initial_state()
    for step in range(count):
        arguments = (dict(values), trajectories.advance(step), state, STEPS, 5 + step)
        arguments = tf.nest.map_structure(tf.constant, arguments)
        starts.append(arguments[1])
        found.append(estimate(*arguments))
        state = found[-1].state
        trajectories.take(found[-1].window)
    return batch, starts, found


@pytest.mark.slow
def test_parts_add_up_to_the_whole():
    """In a window where all start, and in the next, where some go on."""
    _, _, wholes = first_windows(2, "truncated", 1, attention=True)
    batch, starts, founds = first_windows(2, "truncated", 2, attention=True)
    assert batch.num_parts == 2
    assert np.all(np.array(starts[0].fresh) == 1)
    for start in starts[1:]:
        # In each part, so that none of them could take the fresh for the living.
        for _, bounds in batch.parts():
            fresh = np.array(start.fresh[bounds["problem"]])
            assert 0 < fresh.sum() < len(fresh)
    for whole, found in zip(wholes, founds, strict=True):
        largest = max(np.abs(value).max() for value in whole.gradient.values())
        assert_close(found.gradient, whole.gradient, rtol=1e-3, atol=1e-5 * largest)


def test_each_part_gets_what_is_its_own_and_all_comes_back_to_its_place():
    """Nothing is computed here: each part returns what it got."""
    batch = ProblemBatch(TASKS, 4, replicas=2, parts=3)
    optimizer = HierarchicalRule(Config(attention=True))
    options = UnrollConfig(max_steps=STEPS)
    made = InParts(estimator("pes"), batch, optimizer, options)
    assert len(made.parts) == 3
    numbers = iter(range(1, 10**6))

    def distinct(shape):
        """No number is there twice, so nothing can be taken for anything else."""
        size = int(np.prod(shape))
        values = [next(numbers) for _ in range(size)]
        return np.array(values, np.float32).reshape(shape)

    layout = batch.layout
    packed = (layout.num_blocks, layout.block_size)
    shapes = optimizer.state_shapes(layout)
    state = optimizer.state_type(**{name: distinct(x) for name, x in shapes.items()})
    inner = InnerState(distinct(packed), distinct(packed), state)
    names = ("fresh", "alive", "initial_objective", "weights")
    by_problem = {name: distinct(batch.num_problems) for name in names}
    inverse_scale = distinct((packed[0], 1))
    instances = [{"number": distinct(1)} for _ in batch.groups]
    carry = Carry(
        inner=inner, inverse_scale=inverse_scale, instances=instances, **by_problem
    )
    carried = {name: distinct(np.shape(v)) for name, v in made.initial_state().items()}
    got, seeds = [], []

    def echo(meta_parameters, carry, state, num_steps, seed):
        got.append(carry)
        seeds.append(int(seed))
        window = Window(
            inner=carry.inner,
            alive=carry.alive,
            initial_objective=carry.initial_objective,
            objectives=np.stack([carry.fresh, carry.weights]),
            losses=carry.weights,
            mean_log_learning_rate=carry.fresh,
        )
        return Estimate({"w": meta_parameters["w"] * len(got)}, window, state)

    made._compiled = [echo] * 3
    w = tf.constant([1.0, 10.0])
    found = made.estimate({"w": w}, carry, carried, tf.constant(1), tf.constant(7))
    assert_equal(found.gradient, {"w": np.array((1 + 2 + 3) * w)})
    wanted = Window(
        inner=inner,
        alive=by_problem["alive"],
        initial_objective=by_problem["initial_objective"],
        objectives=np.stack([by_problem["fresh"], by_problem["weights"]]),
        losses=by_problem["weights"],
        mean_log_learning_rate=by_problem["fresh"],
    )
    assert_equal(found.window, wanted)
    scales = np.concatenate([each.inverse_scale for each in got])
    np.testing.assert_array_equal(scales, inverse_scale)
    assert [instance for each in got for instance in each.instances] == instances
    assert_equal(found.state, carried)
    assert len({*seeds}) == 3


def test_each_part_has_perturbations_of_its_own():
    """Equal tasks in two parts get different perturbations, kept apart."""
    batch, _, (found,) = first_windows(1, "pes", 2, [Quadratic(3)] * 4)
    assert batch.num_parts == 2
    name = "direction_weights"
    first, second = (np.array(found.state[f"{i}/{name}"]) for i in range(2))
    assert first.shape == second.shape == (2, 10, 1)
    assert np.abs(first - second).min() > 0
    assert np.abs(np.array(found.gradient[name])).max() > 0


@pytest.mark.parametrize("parts, made", [(1, 1), (2, 2), (3, 3), (20, 7)])
def test_parts_are_whole_and_lie_together(parts, made):
    batch = ProblemBatch(TASKS, 4, replicas=2, parts=parts)
    assert batch.num_parts <= made
    if parts <= 3:
        assert batch.num_parts == made
    batches, bounds = zip(*batch.parts(), strict=True)
    total = batch.layout
    for level, count in (
        ("group", len(batch.groups)),
        ("parameter", total.num_blocks),
        ("tensor", total.num_tensors),
        ("problem", total.num_problems),
    ):
        pieces = [bound[level] for bound in bounds]
        assert [piece.start for piece in pieces] == [0] + [p.stop for p in pieces[:-1]]
        assert pieces[-1].stop == count
    for part, bound in zip(batches, bounds, strict=True):
        tensors = total.block_tensor[bound["parameter"]] - bound["tensor"].start
        np.testing.assert_array_equal(part.layout.block_tensor, tensors)
        problems = total.tensor_problem[bound["tensor"]] - bound["problem"].start
        np.testing.assert_array_equal(part.layout.tensor_problem, problems)
