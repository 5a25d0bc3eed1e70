"""Tasks against the released code: its objectives, gradients, sets and data."""

import numpy as np
import pytest

from meta_training.tasks import list_task_sets, task_set
from meta_training.tasks.released import datasets
from meta_training.tasks.released.classifiers import FullyConnected
from meta_training.tasks.released.released_sets import ON_BY_DEFAULT
from tests.meta_training import task_golden as golden

ENTRIES = [
    (name, position)
    for name, described in golden.MANIFEST["problem_sets"].items()
    for position in range(len(described["entries"]))
]


def assert_close(actual, expected, tolerance, what):
    """Close relative to the largest element; 5e-6 is rounding at a minimum."""
    scale = max(float(np.abs(expected).max()), 5e-6 / tolerance)
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what
    )


def tolerance_of(cls):
    # The released float32 matrix inverse loses digits; so does a difference of sums.
    return {"MatMulAlgorithm": 1e-3}.get(cls, 2e-5)


@pytest.mark.parametrize("name", golden.MANIFEST["problems"])
def test_problem(name):
    case = golden.MANIFEST["problems"][name]
    task = golden.from_case(name)
    assert [list(shape) for shape in task.parameter_shapes] == case["param_shapes"]
    arrays = golden.case_arrays(name)
    instance = golden.stack_over_points(task, arrays, case["n_points"])
    if "matrix" in case["keys"]:
        drawn = task.sample_instance(np.random.default_rng(0))["matrix"]
        np.testing.assert_allclose(drawn, golden.ARRAYS[f"{name}/matrix"], atol=1e-6)
    points = golden.case_points(name)
    value, gradients = golden.value_and_gradient(task, points, instance)
    tolerance = tolerance_of(case["cls"])
    assert_close(value, golden.ARRAYS[f"{name}/obj"], tolerance, "objective")
    if not case["has_gradients"]:
        return
    for index, gradient in enumerate(gradients):
        expected = golden.ARRAYS[f"{name}/grad{index}"]
        if name == "2d_Ackley_at_origin":
            # The released gradient is NaN at the minimum; ours is zero on purpose.
            assert np.isnan(expected).all()
            np.testing.assert_array_equal(gradient, 0)
            continue
        for point in range(case["n_points"]):
            what = f"gradient {index} at point {point}"
            assert_close(gradient[point], expected[point], tolerance, what)


@pytest.mark.parametrize(("name", "position"), ENTRIES)
def test_problem_set_entry(name, position):
    entry = golden.MANIFEST["problem_sets"][name]["entries"][position]
    task = task_set(name)[position]
    assert [list(shape) for shape in task.parameter_shapes] == entry["param_shapes"]
    instance = golden.stack_over_points(task, golden.entry_arrays(task, entry), 1)
    point = [x[None] for x in golden.entry_point(task, entry)]
    value, gradients = golden.value_and_gradient(task, point, instance)
    tolerance = tolerance_of(entry["spec"]["cls"])
    assert_close(value[0], entry["obj"], tolerance, "objective")
    if "grad_l2" not in entry:
        assert entry["spec"]["cls"] == "SparseProblem"
        return
    expected = entry["grad_l2"], entry["grad_first"]
    for gradient, length, first in zip(gradients, *expected, strict=True):
        assert_close(np.linalg.norm(gradient), length, tolerance, "gradient length")
        found, atol = gradient.ravel()[: len(first)], tolerance * max(length, 1e-6)
        np.testing.assert_allclose(found, first, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(("name", "position"), ENTRIES)
def test_problem_set_entry_is_described_as_released(name, position):
    """Kind, noise, sparsity, scale, batch size and rows, from the released spec."""
    entry = golden.MANIFEST["problem_sets"][name]["entries"][position]
    spec, task = entry["spec"], task_set(name)[position]
    expected = golden.from_specification(spec)
    assert task.batch_key[0] is expected.batch_key[0]
    assert task.noise_stdev == spec["kwargs"].get("noise_stdev", 0.0)
    sparse = 0.99 if spec["cls"] == "SparseProblem" else 0.0
    assert task.gradient_zero_probability == sparse
    for number in (*expected.numbers, "hidden_sizes", "activation"):
        if number not in ("separation", "data_seed") and hasattr(expected, number):
            assert getattr(task, number) == getattr(expected, number), number
    if spec["cls"] == "DependencyChain":
        # Its objective reads no data, so that there are no minibatches to draw.
        assert task.batch_size is None
    elif entry["batch_size"] is None:
        assert task.batch_size is None
    else:
        rows = entry["data_shape"][0]
        assert task.rows == rows
        # A batch larger than the data was the whole data.
        assert (task.batch_size or rows) == min(entry["batch_size"], rows)


@pytest.mark.parametrize("name", golden.MANIFEST["problem_sets"])
def test_released_set_sizes(name):
    assert len(task_set(name)) == len(golden.MANIFEST["problem_sets"][name]["entries"])


def test_released_is_what_the_released_command_line_turns_on():
    described = golden.MANIFEST["problem_sets"]
    on = {name for name in described if described[name]["on_by_default_in_metarun"]}
    assert set(ON_BY_DEFAULT) == on
    assert set(described) <= set(list_task_sets())
    sizes = [len(described[name]["entries"]) for name in on]
    assert len(task_set("released")) == sum(sizes)


def test_no_neural_networks():
    kept = task_set("no_neural_networks")
    dropped = [task for task in task_set("released") if task not in kept]
    assert {type(task) for task in dropped} == {FullyConnected}
    assert len(dropped) == 12 + 3


DATASETS = {
    "noisy_parity_5_s123": lambda: datasets.noisy_parity(5, 123),
    "random_10_30_s123_sep2": lambda: datasets.random_classification(
        10, 30, 123, separation=2.0
    ),
    "random_binary_5_20_s6": lambda: datasets.random_binary(5, 20, 6),
    "random_symmetric_5_20_s6": lambda: datasets.random_symmetric(5, 20, 6),
    "random_mlp_8_40_s6": lambda: datasets.random_mlp(8, 40, 6),
}


@pytest.mark.parametrize("name", DATASETS)
def test_dataset(name):
    dataset = DATASETS[name]()
    data, labels = (golden.ARRAYS[f"dataset_{name}/{x}"] for x in ("data", "labels"))
    np.testing.assert_allclose(dataset.data, data, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.data.dtype, dataset.labels.dtype) == (np.float32, np.int32)


def test_random_classification_of_the_released_size():
    expected = golden.MANIFEST["datasets"]["random_10_1000_s123_sep2_stats"]
    data, labels = datasets.random_classification(10, 1000, 123, separation=2.0)
    assert data.sum(dtype=np.float64) == pytest.approx(expected["sum"], rel=1e-5)
    assert labels.sum() == expected["labels_sum"]
    np.testing.assert_allclose(data[0], expected["row0"], rtol=1e-5)
    assert labels[0] == expected["label0"]
    instance = task_set("softmax_2_class_problems")[0].sample_instance(None)
    np.testing.assert_array_equal(instance["data"], data)


def test_random_mlp_positive_fractions():
    expected = golden.MANIFEST["datasets"]["random_mlp_positive_fraction"]
    for seed, fraction in expected.items():
        labels = datasets.random_mlp(8, 1000, int(seed)).labels
        assert labels.mean() == pytest.approx(fraction, abs=1e-3)
