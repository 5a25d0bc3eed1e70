"""What every task must hold: batching, derivatives, sampling, errors, names."""

import dataclasses
import doctest

import numpy as np
import pytest
import tensorflow as tf

import meta_training.tasks.base
from meta_training.tasks import (
    SumTask,
    list_task_sets,
    log_objective,
    register_task_set,
    rescale,
    sparse_gradient,
    stack_instances,
    stack_parameters,
    task_set,
    task_sets,
)
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.released.convolutional import ConvNet
from meta_training.tasks.released.fully_connected import FullyConnected
from meta_training.tasks.released.matrix_multiplication import MatrixMultiplication
from meta_training.tasks.released.norm import Norm
from meta_training.tasks.released.quadratics import Quadratic
from meta_training.tasks.released.softmax_regression import (
    SoftmaxRegression,
    SparseSoftmaxRegression,
)
from meta_training.tasks.released.structured import (
    DependencyChain,
    IsotropicQuadratic,
    MinMaxWell,
    OutwardSnake,
    SumOfQuadratics,
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


def drawn(tasks, seed=0):
    """Stacked starts and instances of the tasks, minibatches where they draw any."""
    generator = np.random.default_rng(seed)
    instances = [task.sample_instance(generator) for task in tasks]
    starts = [task.sample_parameters(generator) for task in tasks]
    parameters = [tf.constant(x) for x in stack_parameters(starts)]
    instance = {
        name: tf.constant(array) for name, array in stack_instances(instances).items()
    }
    first = tasks[0]
    if first.batch_size is not None:
        rows = generator.integers(first.rows, size=(len(tasks), first.batch_size))
        instance = first.minibatch(instance, tf.constant(rows, tf.int32))
    return parameters, instance


def differentiate(task, parameters, instance):
    """Objective, gradients, and the Hessian times the gradient's sign."""
    with tf.GradientTape() as outer:
        outer.watch(parameters)
        with tf.GradientTape() as inner:
            inner.watch(parameters)
            value = task.objective(parameters, instance)
        gradients = inner.gradient(value, parameters)
        product = tf.add_n(
            [
                tf.reduce_sum(gradient * tf.stop_gradient(tf.sign(gradient)))
                for gradient in gradients
            ]
        )
    zero = tf.UnconnectedGradients.ZERO
    curvature = outer.gradient(product, parameters, unconnected_gradients=zero)
    return value, gradients, curvature


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


@pytest.mark.parametrize("name", GROUPS)
def test_a_step_against_the_gradient_descends(name):
    task = GROUPS[name][0]
    parameters, instance = drawn([task], seed=1)
    value, gradients, curvature = differentiate(task, parameters, instance)
    length = sum(float(tf.reduce_sum(tf.square(g))) for g in gradients)
    bend = max(float(tf.reduce_max(tf.abs(c))) for c in curvature)
    # The decrease must show above float32 rounding of the value.
    step = max(1e-3 / (1 + bend), 1e-4 * float(abs(value[0])) / length)
    moved = [x - step * g for x, g in zip(parameters, gradients, strict=True)]
    assert task.objective(moved, instance)[0] < value[0]


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
    for actual, expected in zip(
        tf.nest.flatten(found), tf.nest.flatten(eager), strict=True
    ):
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * scale)


# Their instances hold nothing random.
FIXED = (
    "bowl",
    "matrix_multiplication",
    "dependency_chain",
    "min_max_well",
    "isotropic_quadratic",
)


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
        for key in instance:
            np.testing.assert_array_equal(instance[key], same[key])
        for tensor, same_tensor in zip(start, same_start, strict=True):
            np.testing.assert_array_equal(tensor, same_tensor)
        assert any(
            not np.array_equal(x, y) for x, y in zip(start, other_start, strict=True)
        )
        differs = any(not np.array_equal(instance[k], other[k]) for k in instance)
        assert differs != is_fixed(task)


@pytest.mark.parametrize("name", ["released", "no_neural_networks", "default"])
def test_names_are_unique_and_plain(name):
    names = [task.name for task in task_set(name)]
    assert len(set(names)) == len(names)
    assert not [n for n in names if any(c in n for c in " ()[]'\",")]


def test_few_computations():
    """The keys are what XLA compiles: these numbers may fall, not rise."""
    released = {task.batch_key for task in task_set("released")}
    default = {task.batch_key for task in task_set("default")}
    assert len(released) <= 48
    assert len(default - released) <= 14
    assert max(task.parameter_count for task in task_set("default_networks")) < 2000


def test_broad_networks_are_what_they_are_for():
    """20 to 200 tensors and widths from 8 to 256 under batch normalisation; noise."""
    deep = task_set("deep_networks")
    broad = task_set("broad_networks")
    assert broad[: len(deep)] == deep
    normalised = [task for task in broad if task.statistics_shapes]
    counts = [len(task.parameter_shapes) for task in normalised]
    assert max(counts) == 197 and sum(20 <= count <= 200 for count in counts) >= 10
    widths = {units for task in normalised for (units,) in task.statistics_shapes}
    assert {8, 256} <= widths
    # A step of the learned optimizer costs some 50 ns per parameter.
    assert max(task.parameter_count for task in broad) < 100_000
    assert len({task.name for task in broad}) == len(broad)
    noisy = [task for task in broad[len(deep) :] if task.label_noise]
    assert len(noisy) == len(broad[len(deep) :]) // 2


def test_rare_words_have_no_gradient():
    task = EmbeddingNetwork(400, 6, 4, 5, 3)
    parameters, instance = drawn([task])
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        loss = task.objective(parameters, instance)
    gradient = tf.convert_to_tensor(tape.gradient(loss, parameters[0]))[0].numpy()
    met = np.unique(instance["data"])
    assert 20 < len(met) < 200
    np.testing.assert_array_equal(np.flatnonzero(np.any(gradient, axis=1)), met)


def test_default_has_released_and_random_data():
    default, released = task_set("default"), task_set("released")
    assert [task.batch_key for task in default[: len(released)]] == [
        task.batch_key for task in released
    ]
    assert default[len(released) :] == task_set("default_networks")
    assert {getattr(task, "data_seed", None) for task in default} == {None}
    assert all(task.positive for task in default)


def test_no_neural_networks():
    kept = task_set("no_neural_networks")
    dropped = [task for task in task_set("released") if task not in kept]
    assert {type(task) for task in dropped} == {FullyConnected}
    assert len(dropped) == 12 + 3


def test_tasks_are_values():
    assert task_set("default") == task_set("default")
    assert Quadratic(5) != Quadratic(6)
    assert Quadratic(5).batch_key != Quadratic(6).batch_key
    assert (
        FullyConnected(8, (8, 5), batch_size=10).batch_key
        != FullyConnected(8, (8, 5), batch_size=16).batch_key
    )
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


def test_wrappers_keep_the_computation_and_drop_the_noise():
    noisy = Quadratic(6, noise_stdev=0.5)
    variants = [
        rescale(noisy, 3.0),
        log_objective(noisy),
        sparse_gradient(noisy, 0.9),
        rescale(log_objective(noisy), 2.0),
    ]
    assert {task.batch_key for task in variants} == {noisy.batch_key}
    assert {task.noise_stdev for task in variants} == {0.0}
    assert [task.gradient_zero_probability for task in variants] == [0, 0, 0.9, 0]
    assert rescale(rescale(noisy, 3.0), 2.0).parameter_scale == 6.0
    assert SumTask([noisy, Saddle()]).noise_stdev == 0.0
    assert not SumTask([noisy, Saddle()]).positive


def test_wrapped_network():
    """A general task is rescaled and made logarithmic by the same formulas."""
    task = Perceptron(4, (3,), 3, rows=8, batch_size=4)
    scaled = rescale(task, 20.0)
    assert (scaled.rows, scaled.batch_size) == (8, 4)
    assert scaled.batch_key == rescale(task, 3.0).batch_key
    parameters, instance = drawn([task, task])
    _, scaled_instance = drawn([scaled, scaled])
    plain = task.objective(parameters, instance)
    np.testing.assert_allclose(
        scaled.objective([20 * x for x in parameters], scaled_instance),
        plain,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        log_objective(task).objective(parameters, instance),
        np.log(plain + 1e-6) - np.log(1e-6),
        rtol=1e-5,
    )
    seed = np.random.default_rng
    np.testing.assert_allclose(
        scaled.sample_parameters(seed(3))[0], 20 * task.sample_parameters(seed(3))[0]
    )


@pytest.mark.parametrize(
    "task", [FullyConnected(3, ()), SoftmaxRegression(3)], ids=lambda task: task.name
)
def test_two_class_accuracy_follows_the_loss(task):
    """The released accuracy read the second logit as class one: it was inverted."""
    kernel = np.zeros((1, 3, 2), np.float32)
    kernel[0, 0, 0] = 5.0
    parameters = [tf.constant(kernel), tf.zeros((1, 2))]
    data = np.array([[[1, 0, 0], [-1, 0, 0], [2, 1, 1], [-3, 1, 0]]], np.float32)
    right = {"data": data, "labels": np.array([[1, 0, 1, 0]], np.int32)}
    wrong = {"data": data, "labels": np.array([[0, 1, 0, 0]], np.int32)}
    assert task.accuracy(parameters, right) == 1.0
    assert task.accuracy(parameters, wrong) == 0.25
    assert task.objective(parameters, right) < task.objective(parameters, wrong)


def test_many_class_accuracy():
    task = Perceptron(2, (), 3)
    parameters = [tf.constant([[[1.0, 0, 0], [0, 1, 0]]]), tf.zeros((1, 3))]
    instance = {
        "data": np.array([[[2, 1], [1, 2], [-1, -2]]], np.float32),
        "labels": np.array([[0, 1, 1]], np.int32),
        "activation": np.zeros((1, 5), np.float32),
    }
    accuracy = task.accuracy(parameters, instance).numpy()
    assert accuracy == pytest.approx([2 / 3])


def test_sum_of_quadratics_is_positive_on_the_whole_data_alone():
    assert SumOfQuadratics(4).positive
    assert not SumOfQuadratics(4, batch_size=10).positive


ERRORS = [
    (lambda: Quadratic(0), "dimension must be positive integers. Received: 0"),
    (lambda: Quadratic(2.5), "dimension must be positive integers. Received: 2.5"),
    (lambda: Quadratic(5, noise_stdev=-1.0), "noise_stdev .* Received: -1.0"),
    (lambda: Quadratic(5, noise_stdev=float("nan")), "noise_stdev .* Received: nan"),
    (lambda: Quadratic(5, batch_size=3), "batch_size must be None .* Received: 3"),
    (lambda: Norm(5, 0.5), "power .* 1 or more. Received: 0.5"),
    (lambda: Bowl(0.0), "condition_number must be positive .* Received: 0.0"),
    (lambda: Bowl(1.0, float("inf")), "angle must be finite. Received: inf"),
    (lambda: rescale(Quadratic(5), -2.0), "scale must be positive .* Received: -2.0"),
    (lambda: rescale(MinMaxWell(5), 0.0), "scale must be positive .* Received: 0.0"),
    (lambda: log_objective(Saddle()), "nonnegative objective. Received: saddle"),
    (lambda: sparse_gradient(Quadratic(5), 1.5), "zero_probability .* Received: 1.5"),
    (lambda: SumTask([]), "one member or more. Received: none"),
    (
        lambda: SumTask([OutwardSnake(5, batch_size=3)]),
        "must not draw minibatches. Received: outward_snake_5_batch3",
    ),
    (lambda: MatrixMultiplication(1, 1), "size must be 2 or more. Received: 1"),
    (lambda: MatrixMultiplication(2, 9), "from size.2 = 4 to size.3 = 8. Received: 9"),
    (lambda: DependencyChain(-1), "dimension must be positive integers. Received: -1"),
    (lambda: IsotropicQuadratic(((3, 0),)), r"shapes must be .* Received: \(3, 0\)"),
    (lambda: OutwardSnake(5, rows=0), "rows must be positive integers. Received: 0"),
    (
        lambda: OutwardSnake(5, rows=20, batch_size=21),
        r"must not exceed the rows of data \(20\). Received: 21",
    ),
    (
        lambda: FullyConnected(8, (8, -5)),
        r"hidden_sizes must be positive integers. Received: \(8, -5\)",
    ),
    (
        lambda: FullyConnected(8, (8,), activation="swish"),
        "activation must be one of 'relu', .* Received: 'swish'",
    ),
    (lambda: ConvNet((1, 6, 0), ()), "image_shape must be positive integers"),
    (lambda: SoftmaxRegression(5, 0), "classes must be positive"),
    (lambda: SoftmaxRegression(5, separation=0.0), "separation must be positive"),
    (lambda: SparseSoftmaxRegression(5, context=0), "context must be positive"),
    (lambda: Perceptron(8, (8,), 0), "classes must be positive integers. Received: 0"),
    (lambda: Perceptron(8, (8,), 3, label_noise=2.0), "label_noise .* Received: 2.0"),
    (lambda: Perceptron(8, (8,), 3, "group"), "normalisation must be one of 'none'"),
    (
        lambda: Perceptron(8, (8,), 3, initialisation="zeros"),
        "initialisation must be one of 'glorot_uniform', .* Received: 'zeros'",
    ),
    (lambda: Perceptron(8, (8,), 3, source="iris"), "source must be one of 'mixture'"),
    (lambda: Regression(8, (8,), 1, -0.1), "target_noise .* Received: -0.1"),
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


def test_a_task_of_ones_own():
    """The example of base.py runs, and its set can be used like any other."""
    try:
        (example,) = doctest.DocTestFinder(recurse=False).find(meta_training.tasks.base)
        # Uncleared, so that the set can still build the class of the example.
        results = doctest.DocTestRunner().run(example, clear_globs=False)
        assert results.attempted > 5
        assert results.failed == 0
        tasks = task_set("valleys")
        parameters, instance = drawn([tasks[0], tasks[0]])
        value, _, _ = differentiate(tasks[0], parameters, instance)
        expected = np.sum(instance["curvature"] * parameters[0] ** 2, axis=-1)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    finally:
        task_sets._task_sets._members.pop("valleys", None)
