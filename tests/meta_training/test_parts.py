"""A window in parts against the same window in one piece."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.config import Config
from meta_training.estimators import InParts, compiled_estimator, estimator
from meta_training.problem_batch import ProblemBatch
from meta_training.tasks.bowl import Bowl
from meta_training.tasks.quadratics import Quadratic
from meta_training.tasks.test_functions import Rosenbrock
from meta_training.trainable_optimizers import HierarchicalRule
from meta_training.trajectories import Trajectories, TrajectoryOptions
from meta_training.windows import UnrollOptions

STEPS = 4
# Nothing is drawn within a window, which would depend on the parts.
TASKS = [
    Quadratic(3),
    Bowl(5.0),
    Quadratic(3),
    Rosenbrock(),
    Quadratic(7),
    Quadratic(3),
    Bowl(5.0),
]
OPTIONS = TrajectoryOptions(
    min_window_steps=STEPS, mean_window_steps=STEPS, max_window_steps=STEPS
)


def first_window(name, parts, tasks=TASKS, attention=False):
    """The batch and the estimate of the first window of all tasks."""
    weights = load_weights("bootstrap-v1")
    config = Config(attention=True) if attention else weights.config
    optimizer = HierarchicalRule(config)
    values = weights.meta_parameters
    if attention:
        values = optimizer.initial_meta_parameters(seed=0)
    estimator_class = estimator(name)
    batch = ProblemBatch(tasks, 4, estimator_class.replicas, parts=parts)
    made, estimate = compiled_estimator(
        estimator_class, batch, optimizer, UnrollOptions(max_steps=STEPS)
    )
    assert isinstance(made, InParts) == (parts > 1)
    trajectories = Trajectories(batch, optimizer, OPTIONS, seed=3)
    found = estimate(
        {name: tf.constant(value) for name, value in values.items()},
        tf.nest.map_structure(tf.constant, trajectories.advance(0)),
        tf.nest.map_structure(tf.constant, made.initial_state()),
        tf.constant(STEPS),
        tf.constant(5),
    )
    trajectories.take(found.window)
    trajectories.close()
    return batch, found


@pytest.mark.slow
@pytest.mark.parametrize("attention", [False, True])
def test_parts_add_up_to_the_whole(attention):
    whole_batch, whole = first_window("truncated", 1, attention=attention)
    batch, found = first_window("truncated", 2, attention=attention)
    assert batch.num_parts == 2
    largest = max(np.abs(np.array(value)).max() for value in whole.gradient.values())
    for name, value in whole.gradient.items():
        np.testing.assert_allclose(
            found.gradient[name], value, rtol=1e-3, atol=1e-5 * largest, err_msg=name
        )
    order, whole_order = (np.argsort(b.problem_task) for b in (batch, whole_batch))
    for name in ("losses", "alive", "initial_objective", "mean_log_learning_rate"):
        np.testing.assert_allclose(
            np.array(getattr(found.window, name))[order],
            np.array(getattr(whole.window, name))[whole_order],
            rtol=1e-5,
            err_msg=name,
        )
    # What comes after the window lies where the next one looks for it.
    for task in range(len(TASKS)):
        ends = [
            np.concatenate([np.ravel(values[blocks]) for blocks in own])
            for b, values, own in (
                (batch, np.array(found.window.inner.values), _blocks(batch, task)),
                (
                    whole_batch,
                    np.array(whole.window.inner.values),
                    _blocks(whole_batch, task),
                ),
            )
        ]
        np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-6)


def _blocks(batch, task):
    for group in batch.groups:
        if task in group.members:
            return batch.blocks_of(group, group.members.index(task))
    raise AssertionError(task)


def test_each_part_has_perturbations_of_its_own():
    """Equal tasks in two parts get different perturbations, kept apart."""
    batch, found = first_window("pes", 2, [Quadratic(3)] * 4)
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
    bounds = batch.part_bounds()
    total = batch.layout
    for dimension, count in (
        ("groups", len(batch.groups)),
        ("blocks", total.num_blocks),
        ("tensors", total.num_tensors),
        ("problems", total.num_problems),
    ):
        pieces = [getattr(bound, dimension) for bound in bounds]
        assert [piece.start for piece in pieces] == [0] + [p.stop for p in pieces[:-1]]
        assert pieces[-1].stop == count
    for number, bound in enumerate(bounds):
        part = batch.part(number).layout
        np.testing.assert_array_equal(
            part.block_tensor, total.block_tensor[bound.blocks] - bound.tensors.start
        )
        np.testing.assert_array_equal(
            part.tensor_problem,
            total.tensor_problem[bound.tensors] - bound.problems.start,
        )
    with pytest.raises(ValueError, match="parts must be a positive integer"):
        ProblemBatch(TASKS, parts=0)
