"""What every task must hold: batching, derivatives, sampling, errors, names."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_training.tasks import (
    SumTask,
    list_task_sets,
    log_objective,
    register_task_set,
    rescale,
    sparse_gradient,
    task_set,
)
from meta_training.tasks.released.algebraic import Bowl, Norm, Quadratic
from meta_training.tasks.released.classifiers import (
    ConvNet,
    FullyConnected,
    SoftmaxRegression,
    SparseSoftmaxRegression,
)
from meta_training.tasks.released.matrix_multiplication import MatrixMultiplication
from meta_training.tasks.released.structured import (
    DependencyChain,
    IsotropicQuadratic,
    MinMaxWell,
    OutwardSnake,
)
from meta_training.tasks.released.test_functions import Ackley, Rosenbrock, Saddle
from meta_training.tasks.small_networks.image_networks import ImageNetwork
from meta_training.tasks.small_networks.perceptrons import (
    Autoencoder,
    Perceptron,
    Regression,
)
from meta_training.tasks.small_networks.sequence_networks import (
    AttentionNetwork,
    EmbeddingNetwork,
    RecurrentNetwork,
)
from tests.arrays import assert_equal
from tests.meta_training.tasks.stacks import differentiate, drawn

# Not the tasks, some of them faulty, that other tests of this process register.
SHIPPED_SETS = tuple(
    name
    for name in list_task_sets()
    if all(
        type(task).__module__.startswith("meta_training.") for task in task_set(name)
    )
)


def distinct_tasks(names=SHIPPED_SETS):
    """Every different task of the named sets, in a fixed order."""
    return list(dict.fromkeys(task for name in names for task in task_set(name)))


OTHERS = [
    Saddle(),
    IsotropicQuadratic(((3, 2), (4,))),
    ConvNet((1, 6, 6), ((3, 3, 2), (5, 5, 3))),
    FullyConnected(6, (5,), classes=4),
    rescale(Perceptron(6, (5,), 3), 20.0),
    log_objective(Regression(6, (5,), 1)),
    AttentionNetwork(4, 6, 8, 3, blocks=2, positions=True),
    EmbeddingNetwork(30, 6, 4, 5, 3),
    SumTask([MatrixMultiplication(2, 7), rescale(log_objective(Bowl(3.0)), 4.0)]),
]


def groups_by_key():
    groups = {}
    for task in distinct_tasks() + OTHERS:
        groups.setdefault(task.batch_key, []).append(task)
    return {group[0].name: group for group in groups.values()}


GROUPS = groups_by_key()


@pytest.mark.parametrize("name", GROUPS)
def test_stack_equals_each_alone_and_derivatives_are_finite(name):
    # One task more, so that a family of one is stacked too, of two instances.
    tasks = GROUPS[name] + GROUPS[name][:1]
    parameters, instance = drawn(tasks)
    value, gradients, curvature = differentiate(tasks[0], parameters, instance)
    assert value.shape == (len(tasks),)
    assert value.dtype == tf.float32
    for tensor in (value, *gradients, *curvature):
        assert np.isfinite(tensor).all()
    for index, task in enumerate(tasks):
        alone = task.objective(
            [tensor[index : index + 1] for tensor in parameters],
            {key: array[index : index + 1] for key, array in instance.items()},
        )
        np.testing.assert_allclose(alone[0], value[index], rtol=2e-5, atol=1e-6)
        if task.positive:
            assert value[index] >= 0
        assert any(np.abs(gradient[index]).max() > 0 for gradient in gradients)


XLA_CASES = {
    "quadratic": [Quadratic(6), log_objective(Quadratic(6)), rescale(Quadratic(6), 9)],
    "test_function": [Rosenbrock(), Ackley()],
    "matrix_multiplication": [MatrixMultiplication(2, 7)],
    "fully_connected": [FullyConnected(8, (8, 5), batch_size=10)],
    "embedding": [EmbeddingNetwork(30, 6, 4, 5, 3, activation="gelu")],
    "image_network": [ImageNetwork((8, 8, 1), (4, 8), 3, "pool", activation="gelu")],
}


@pytest.mark.parametrize("name", XLA_CASES)
def test_compiled_equals_eager(name):
    tasks = XLA_CASES[name]
    assert len({task.batch_key for task in tasks}) == 1
    parameters, instance = drawn(tasks)
    compiled = tf.function(differentiate, jit_compile=True)
    eager = differentiate(tasks[0], parameters, instance)
    found = compiled(tasks[0], parameters, instance)
    pairs = zip(*map(tf.nest.flatten, (found, eager)), strict=True)
    for actual, expected in pairs:
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * scale)


# Their instances hold nothing random.
FIXED = ("bowl", "matrix_multiplication", "dependency_chain", "min_max_well")
FIXED += ("isotropic_quadratic",)


def is_fixed(task):
    return (
        task.family in FIXED
        or isinstance(task, Rosenbrock.__base__)
        or getattr(task, "data_seed", None) is not None
        or (bool(task.components) and all(map(is_fixed, task.components)))
    )


@pytest.mark.parametrize("name", GROUPS)
def test_sampling(name):
    for task in GROUPS[name]:
        draws = []
        for seed in (5, 5, 6):
            generator = np.random.default_rng(seed)
            instance = task.sample_instance(generator)
            draws.append((instance, task.sample_parameters(generator)))
        (instance, start), (same, same_start), (other, other_start) = draws
        assert tuple(tensor.shape for tensor in start) == task.parameter_shapes
        assert {array.dtype.name for array in start} == {"float32"}
        assert {array.dtype.name for array in instance.values()} <= {"float32", "int32"}
        for row_array in task.row_arrays:
            assert len(instance[row_array]) == task.rows
        assert_equal((same, same_start), (instance, start))
        pairs = zip(start, other_start, strict=True)
        assert not all(np.array_equal(*pair) for pair in pairs)
        differs = any(not np.array_equal(instance[k], other[k]) for k in instance)
        assert differs != is_fixed(task)


@pytest.mark.parametrize("name", ["released", "no_neural_networks", "default"])
def test_names_are_unique_and_plain(name):
    names = [task.name for task in task_set(name)]
    assert len(set(names)) == len(names)
    assert not [n for n in names if any(c in n for c in " ()[]'\",")]


def test_tasks_are_values():
    assert task_set("default") == task_set("default")
    assert Quadratic(5) != Quadratic(6)
    assert Quadratic(5).batch_key != Quadratic(6).batch_key
    networks = [FullyConnected(8, (8, 5), batch_size=size) for size in (10, 16)]
    assert networks[0].batch_key != networks[1].batch_key
    with pytest.raises(dataclasses.FrozenInstanceError):
        Quadratic(5).dimension = 6


def test_minibatch_gathers_the_rows_of_each_task():
    task = SoftmaxRegression(3, rows=6, batch_size=2)
    data = tf.reshape(tf.range(2 * 6 * 3, dtype=tf.float32), [2, 6, 3])
    labels = tf.reshape(tf.range(12), [2, 6])
    rows = tf.constant([[5, 0], [1, 1]])
    batch = task.minibatch({"data": data, "labels": labels, "other": rows}, rows)
    np.testing.assert_array_equal(batch["labels"], [[5, 0], [7, 7]])
    np.testing.assert_array_equal(batch["data"][0], data.numpy()[0, [5, 0]])
    np.testing.assert_array_equal(batch["other"], rows)


ERRORS = [
    (lambda: Quadratic(0), "dimension must be positive integers. Received: 0"),
    (lambda: Quadratic(2.5), "dimension must be positive integers. Received: 2.5"),
    (lambda: Quadratic(5, noise_stdev=-1.0), "noise_stdev .* Received: .*-1.0"),
    (lambda: Quadratic(5, noise_stdev=float("nan")), "noise_stdev .* Received: .*nan"),
    (lambda: Quadratic(5, batch_size=3), "draws .none.. Received: 3"),
    (lambda: Norm(5, 0.5), "power must .* 1 or more. Received: .*0.5"),
    (lambda: Bowl(0.0), "condition_number must .* above 0.* Received: .*0.0"),
    (lambda: Bowl(1.0, float("inf")), "angle must be a finite number. Received: .*inf"),
    (lambda: rescale(Quadratic(5), -2.0), "scale must be .* above 0. Received: .*-2.0"),
    (lambda: rescale(MinMaxWell(5), 0.0), "scale must be .* above 0. Received: .*0.0"),
    (lambda: log_objective(Saddle()), "nonnegative objective. Received: saddle"),
    (lambda: sparse_gradient(Quadratic(5), 1.5), "zero_probability .* Received: .*1.5"),
    (lambda: SumTask([]), "one member or more. Received: none"),
    (
        lambda: SumTask([OutwardSnake(5, batch_size=3)]),
        "must not draw minibatches. Received: outward_snake_5_batch3",
    ),
    (lambda: MatrixMultiplication(1, 1), "size must be 2 or more. Received: 1"),
    (lambda: MatrixMultiplication(2, 9), "from size.2 = 4 to size.3 = 8. Received: 9"),
    (lambda: DependencyChain(-1), "dimension must be positive integers. Received: -1"),
    (lambda: IsotropicQuadratic(((3, 0),)), r"shapes must be .* Received: .*\(3, 0\)"),
    (lambda: OutwardSnake(5, rows=0), "rows must be positive integers. Received: 0"),
    (
        lambda: OutwardSnake(5, rows=20, batch_size=21),
        r"must not exceed the rows .* \(20\). Received: 21",
    ),
    (
        lambda: FullyConnected(8, (8, -5)),
        r"hidden_sizes must be positive integers. Received: \(8, -5\)",
    ),
    (
        lambda: FullyConnected(8, (8,), activation="swish"),
        "activation must be one of relu, .* Received: .*'swish'",
    ),
    (lambda: ConvNet((1, 6, 0), ()), "image_shape must be positive integers"),
    (lambda: SoftmaxRegression(5, 0), "classes must be positive"),
    (lambda: SoftmaxRegression(5, separation=0.0), "separation must be .* above 0"),
    (lambda: SparseSoftmaxRegression(5, context=0), "context must be positive"),
    (lambda: Perceptron(8, (8,), 0), "classes must be positive integers. Received: 0"),
    (lambda: Perceptron(8, (8,), 3, label_noise=2.0), "label_noise .* Received: .*2.0"),
    (lambda: Perceptron(8, (8,), 3, "group"), "normalisation must be one of none"),
    (
        lambda: Perceptron(8, (8,), 3, initialisation="zeros"),
        "initialisation must be one of glorot_uniform, .* Received: .*'zeros'",
    ),
    (lambda: Perceptron(8, (8,), 3, source="iris"), "source must be one of mixture"),
    (lambda: Regression(8, (8,), 1, -0.1), "target_noise .* Received: .*-0.1"),
    (lambda: Autoencoder(0, (8,)), "features must be positive integers"),
    (lambda: ImageNetwork((9, 8, 1), (4,), 3), "multiples of 2, .* Received"),
    (lambda: RecurrentNetwork(0, 4, 8, 3), "steps must be positive integers"),
    (lambda: AttentionNetwork(5, 6, 9, 4), r"multiple of heads \(2\). Received: 9"),
    (lambda: register_task_set("released")(list), "must be new. Received: 'released'"),
    (lambda: task_set("relased"), "one of bowl_problems, .* Received: 'relased'"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
