"""Packing of many tasks, and their objectives and gradients side by side."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.inner.problem_batch import Draws, ProblemBatch
from meta_training.tasks import rescale, sparse_gradient, stack_instances
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from meta_training.tasks.released.classifiers import FullyConnected
from meta_training.tasks.released.test_functions import Rosenbrock
from tests.arrays import assert_close, assert_equal

TASKS = [
    Quadratic(5),
    FullyConnected(3, (4,), rows=20, batch_size=6),
    Rosenbrock(),
    rescale(Quadratic(5), 10.0),
    Bowl(2.0),
    Bowl(5.0, noise_stdev=0.5),
    sparse_gradient(FullyConnected(3, (4,), rows=20, batch_size=6), 0.5),
]
NOTHING_DRAWN = Draws({}, {}, {}, {})


def drawn(batch, seed=0):
    """Instances of each group, and the parameters of all problems by group."""
    generator = np.random.default_rng(seed)
    instances, parameters = [], []
    for group in batch.groups:
        instances.append(
            stack_instances([task.sample_instance(generator) for task in group.tasks])
        )
        shapes = [(group.num_problems, *s) for s in group.task.parameter_shapes]
        parameters.append([np.float32(generator.standard_normal(s)) for s in shapes])
    return instances, parameters


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_unpack_is_the_reverse_of_pack(block_size, replicas):
    batch = ProblemBatch(TASKS, block_size, replicas)
    _, parameters = drawn(batch)
    packed = batch.pack(parameters)
    assert packed.shape == (len(batch.layout.block_tensor), block_size)
    assert_equal(batch.unpack(packed), parameters)
    # What the layout calls the blocks of a problem holds its elements, and no other.
    for group, tensors in zip(batch.groups, parameters, strict=True):
        for problem in range(group.num_problems):
            number = group.first_problem + problem
            all_blocks = batch.blocks_of(group, problem)
            for blocks, values in zip(all_blocks, tensors, strict=True):
                flat, own = packed[blocks].numpy().ravel(), values[problem].ravel()
                np.testing.assert_array_equal(flat[: own.size], own)
                assert not np.any(flat[own.size :])
                assert np.all(batch.block_problem[blocks] == number)


def test_each_problem_has_its_task():
    batch = ProblemBatch(TASKS, 4, 2)
    assert batch.num_problems == 2 * len(TASKS)
    assert len(batch.groups) == 4
    for group in batch.groups:
        own = batch.problem_task[group.problems]
        np.testing.assert_array_equal(own, [*group.members, *group.members])


@pytest.mark.parametrize("start", [None, 5], ids=["all rows", "rows 5 to 12"])
def test_objectives_and_gradients_are_those_of_each_task_alone(start):
    batch = ProblemBatch(TASKS, 4, objective_rows=None if start is None else 8)
    instances, parameters = drawn(batch)
    generator = np.random.default_rng(1)
    scale = np.exp(generator.normal(size=(len(batch.layout.block_tensor), 1)))
    # One scale a tensor.
    scale = scale[batch.layout.block_tensor].astype(np.float32)
    values = batch.pack(parameters) * scale
    rows = {1: np.array([[0, 3, 3, 7, 19, 2], [1, 2, 3, 4, 5, 6]])}
    draws = NOTHING_DRAWN._replace(rows=rows)
    if start is not None:
        draws = draws._replace(objective_start={1: tf.constant(start)})
    evaluation = batch.evaluate(values, values, 1 / scale, instances, draws)
    objectives = evaluation.objectives
    gradients = batch.unpack(evaluation.gradients * scale)
    slopes = batch.unpack(evaluation.slopes() * scale)
    for number, group in enumerate(batch.groups):
        for j, task in enumerate(group.tasks):
            own = [tf.constant(tensor[j : j + 1]) for tensor in parameters[number]]
            instance = {k: v[j : j + 1] for k, v in instances[number].items()}
            with tf.GradientTape() as tape:
                tape.watch(own)
                data = instance
                if number in rows:
                    data = task.minibatch(instance, rows[number][j : j + 1])
                loss = task.objective(own, data)
            # What is recorded sees other rows than the gradient: all, or the window.
            seen = instance
            if number in draws.objective_start:
                seen = {
                    name: array[:, 5:13] if name in task.row_arrays else array
                    for name, array in instance.items()
                }
            with tf.GradientTape() as recorded_tape:
                recorded_tape.watch(own)
                recorded = task.objective(own, seen)
            assert_close(objectives[group.first_problem + j], recorded[0], rtol=1e-5)
            for all_found, wanted in (
                (gradients[number], tape.gradient(loss, own)),
                (slopes[number], recorded_tape.gradient(recorded, own)),
            ):
                found = [tensor[j : j + 1] for tensor in all_found]
                assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_draws_depend_on_seed_and_step_alone():
    batch = ProblemBatch(TASKS, 4, objective_rows=8)
    first, again, later, other = (
        tf.nest.flatten(batch.draw(tf.constant(seed), tf.constant(step)))
        for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    )
    assert len(first) == 4
    for a, b, c, d in zip(first, again, later, other, strict=True):
        np.testing.assert_array_equal(a, b)
        if np.ndim(a):
            assert np.any(a != c) and np.any(a != d)


def test_rows_are_drawn_from_all_of_the_data():
    batch = ProblemBatch(TASKS, 4, objective_rows=8)
    draws = [batch.draw(tf.constant(0), tf.constant(step)) for step in range(60)]
    rows = np.concatenate([np.ravel(draw.rows[1]) for draw in draws])
    assert set(rows) == set(range(20))
    starts = {int(draw.objective_start[1]) for draw in draws}
    assert min(starts) == 0 and max(starts) == 12


def test_each_task_has_its_own_noise_and_zeroing():
    # One more that asks for both. With it, each group that is disturbed also has a
    # task that is not, or not as much.
    both = sparse_gradient(TASKS[1], 0.25, noise_stdev=0.1)
    batch = ProblemBatch([*TASKS, both], 4, replicas=2)
    instances, parameters = drawn(batch)
    # Both replicas of a task at one place.
    parameters = [
        [np.concatenate([t[: len(t) // 2]] * 2) for t in tensors]
        for tensors in parameters
    ]
    values = batch.pack(parameters)
    ones = tf.ones([len(values), 1])
    # This seed draws numbers just below and just above each probability of a zero.
    full = batch.draw(tf.constant(14), tf.constant(0))
    plain = full._replace(noise={}, zeroing={})
    with_both, without = (
        batch.unpack(batch.evaluate(values, values, ones, instances, draws).gradients)
        for draws in (full, plain)
    )
    for number, group in enumerate(batch.groups):
        for disturbed in with_both[number]:
            # Replicas share what is drawn.
            np.testing.assert_allclose(*np.split(disturbed, 2), rtol=1e-5, atol=1e-6)
        for j, task in enumerate(group.tasks):
            found, wanted = (
                np.concatenate([np.ravel(tensor[j]) for tensor in gradients[number]])
                for gradients in (with_both, without)
            )
            if task.noise_stdev:
                wanted = wanted + task.noise_stdev * full.noise[number][j]
            zeroed = np.zeros(found.shape, bool)
            if task.gradient_zero_probability:
                zeroed = full.zeroing[number][j] < task.gradient_zero_probability
                assert 0 < np.mean(zeroed) < 1
            # Zeroes come after the noise, and nowhere else.
            np.testing.assert_array_equal(found == 0, zeroed)
            assert_close(found[~zeroed], wanted[~zeroed], rtol=1e-5, atol=1e-6)


def test_a_batch_needs_tasks():
    with pytest.raises(ValueError, match="tasks must be one or more"):
        ProblemBatch([])
