"""Packing of many tasks, and their objectives and gradients side by side."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.problem_batch import Draws, ProblemBatch
from meta_training.tasks import rescale, sparse_gradient, stack_instances
from meta_training.tasks.bowl import Bowl
from meta_training.tasks.fully_connected import FullyConnected
from meta_training.tasks.quadratics import Quadratic
from meta_training.tasks.test_functions import Rosenbrock

TASKS = [
    Quadratic(5),
    FullyConnected(3, (4,), rows=20, batch_size=6),
    Rosenbrock(),
    rescale(Quadratic(5), 10.0),
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
        parameters.append(
            [
                generator.standard_normal((group.num_problems, *shape)).astype(
                    np.float32
                )
                for shape in group.task.parameter_shapes
            ]
        )
    return instances, parameters


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_unpack_is_the_reverse_of_pack(block_size, replicas):
    batch = ProblemBatch(TASKS, block_size, replicas)
    _, parameters = drawn(batch)
    packed = batch.pack(parameters)
    assert packed.shape == (len(batch.layout.block_tensor), block_size)
    for found, wanted in zip(batch.unpack(packed), parameters, strict=True):
        for tensor, value in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(tensor, value)
    # What the layout calls the blocks of a problem holds its elements, and no other.
    for group, tensors in zip(batch.groups, parameters, strict=True):
        for problem in range(group.num_problems):
            number = group.first_problem + problem
            for blocks, values in zip(
                batch.blocks_of(group, problem), tensors, strict=True
            ):
                flat = packed[blocks].numpy().ravel()
                np.testing.assert_array_equal(
                    flat[: values[problem].size], values[problem].ravel()
                )
                assert not np.any(flat[values[problem].size :])
                assert np.all(batch.block_problem[blocks] == number)


def test_each_problem_has_its_task():
    batch = ProblemBatch(TASKS, 4, 2)
    assert batch.num_problems == 2 * len(TASKS)
    assert len(batch.groups) == 4
    for group in batch.groups:
        own = batch.problem_task[group.problems]
        np.testing.assert_array_equal(own, [*group.members, *group.members])


def test_objectives_and_gradients_are_those_of_each_task_alone():
    batch = ProblemBatch(TASKS, 4)
    instances, parameters = drawn(batch)
    generator = np.random.default_rng(1)
    scale = np.exp(generator.normal(size=(len(batch.layout.block_tensor), 1)))
    # One scale a tensor.
    scale = scale[batch.layout.block_tensor].astype(np.float32)
    values = batch.pack(parameters) * scale
    rows = {1: np.array([[0, 3, 3, 7, 19, 2], [1, 2, 3, 4, 5, 6]])}
    draws = NOTHING_DRAWN._replace(rows=rows)
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
            np.testing.assert_allclose(
                objectives[group.first_problem + j],
                task.objective(own, instance)[0],
                rtol=1e-5,
            )
            with tf.GradientTape() as whole_tape:
                whole_tape.watch(own)
                whole = task.objective(own, instance)
            for all_found, wanted in (
                (gradients[number], tape.gradient(loss, own)),
                (slopes[number], whole_tape.gradient(whole, own)),
            ):
                for found, value in zip(all_found, wanted, strict=True):
                    np.testing.assert_allclose(found[j], value[0], rtol=1e-4, atol=1e-6)


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


def test_noise_and_zeroing_reach_the_tasks_that_ask_for_them():
    batch = ProblemBatch(TASKS, 4, replicas=2)
    instances, parameters = drawn(batch)
    # Both replicas of a task at one place.
    parameters = [
        [np.concatenate([t[: len(t) // 2]] * 2) for t in tensors]
        for tensors in parameters
    ]
    values = batch.pack(parameters)
    ones = tf.ones([len(values), 1])
    full = batch.draw(tf.constant(3), tf.constant(0))
    plain = full._replace(noise={}, zeroing={})
    with_both, without = (
        batch.unpack(batch.evaluate(values, values, ones, instances, draws).gradients)
        for draws in (full, plain)
    )
    for number, group in enumerate(batch.groups):
        for noisy, clean in zip(with_both[number], without[number], strict=True):
            np.testing.assert_array_equal(*np.split(noisy, 2))
            for j, task in enumerate(group.tasks):
                difference = noisy[j] - clean[j]
                if task.noise_stdev:
                    assert np.all(difference != 0)
                elif task.gradient_zero_probability:
                    assert np.all((noisy[j] == 0) | (difference == 0))
                else:
                    assert np.all(difference == 0)
    zeroed = np.concatenate([np.ravel(t[1]) for t in with_both[1]])
    assert 0 < np.mean(zeroed == 0) < 1


def test_a_batch_needs_tasks():
    with pytest.raises(ValueError, match="one task or more"):
        ProblemBatch([])
