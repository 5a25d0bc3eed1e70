"""Rebuilds the released problems of the golden data as tasks, instances and points."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from meta_training.tasks import SumTask, log_objective, rescale, sparse_gradient
from meta_training.tasks.released.algebraic import Bowl, Norm, Quadratic
from meta_training.tasks.released.classifiers import (
    ConvNet,
    FullyConnected,
    OneHotSparseSoftmaxRegression,
    SoftmaxRegression,
    SparseSoftmaxRegression,
)
from meta_training.tasks.released.matrix_multiplication import MatrixMultiplication
from meta_training.tasks.released.structured import (
    DependencyChain,
    IsotropicQuadratic,
    MinMaxWell,
    OutwardSnake,
    ProjectionQuadratic,
    SumOfQuadratics,
)
from meta_training.tasks.released.test_functions import TwoDimensional

ROOT = pathlib.Path(__file__).resolve().parents[2]
IN_REPOSITORY = ROOT / "tests" / "golden"
GOLDEN = (
    IN_REPOSITORY
    if (IN_REPOSITORY / "problems.npz").exists()
    else ROOT.parent / "shared" / "golden"
)
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
ARRAYS = np.load(GOLDEN / "problems.npz")

CLASSES = {
    "Quadratic": Quadratic,
    "Bowl": Bowl,
    "MatMulAlgorithm": MatrixMultiplication,
    "SoftmaxRegression": SoftmaxRegression,
    "SparseSoftmaxRegression": SparseSoftmaxRegression,
    "OneHotSparseSoftmaxRegression": OneHotSparseSoftmaxRegression,
    "DependencyChain": DependencyChain,
    "MinMaxWell": MinMaxWell,
    "OutwardSnake": OutwardSnake,
    "SumOfQuadratics": SumOfQuadratics,
    "ProjectionQuadratic": ProjectionQuadratic,
    **{function.__name__: function for function in TwoDimensional.functions},
}


WRAPPERS = {
    "LogObjective": log_objective,
    "Rescale": rescale,
    "SparseProblem": sparse_gradient,
}


def from_specification(spec):
    """The task that a `spec` of the manifest describes."""
    name, args, kwargs = spec["cls"], spec["args"], dict(spec["kwargs"])
    if name == "SumTask":
        return SumTask([from_specification(inner) for inner in args[0]])
    if name in WRAPPERS:
        return WRAPPERS[name](from_specification(args[0]), **kwargs)
    if name == "Norm":
        return Norm(*args, kwargs.pop("norm_power"), **kwargs)
    if name == "FullyConnected":
        features, classes = args
        return FullyConnected(features, classes=classes, **kwargs)
    return CLASSES[name](*args, **kwargs)


def from_case(name):
    """The task of a case of `problems.npz`, by the case's name."""
    case = MANIFEST["problems"][name]
    cls, inner, shapes = case["cls"], case.get("inner"), case["param_shapes"]
    if cls == "SumTask":
        return SumTask([CLASSES[p]() if p in CLASSES else from_case(p) for p in inner])
    if cls in WRAPPERS:
        options = [case["scale"]] if cls == "Rescale" else []
        return WRAPPERS[cls](from_case(inner), *options)
    first = shapes[0]
    make = {
        "Norm": lambda: Norm(first[0], case["norm_power"]),
        "Bowl": lambda: Bowl(**case["args"]),
        "IsotropicQuadratic": lambda: IsotropicQuadratic(shapes),
        "FullyConnected": lambda: FullyConnected(
            first[0], case["hidden_sizes"], activation=case["activation"]
        ),
        "ConvNet": lambda: ConvNet(
            case["image_shape"], case["filters"], activation=name.rsplit("_", 1)[-1]
        ),
        "MatMulAlgorithm": lambda: MatrixMultiplication(case["n"], case["k"]),
        "DependencyChain": lambda: DependencyChain(first[0] - 1),
    }.get(cls)
    if make:
        return make()
    if "Sparse" in cls or cls in ("SumOfQuadratics", "ProjectionQuadratic"):
        return CLASSES[cls](first[1])
    return CLASSES[cls](first[0]) if first != [2] else CLASSES[cls]()


def case_arrays(name):
    """The instance arrays stored for a case, or for the cases it wraps."""
    case = MANIFEST["problems"][name]
    inner = case.get("inner")
    if isinstance(inner, str):
        return case_arrays(inner)
    if inner is not None:
        return {
            f"{index}/{key}": array
            for index, part in enumerate(inner)
            if part in MANIFEST["problems"]
            for key, array in case_arrays(part).items()
        }
    stored = ("w", "y", "data", "labels", "matrix")
    return {key: ARRAYS[f"{name}/{key}"] for key in stored if key in case["keys"]}


def case_points(name):
    """The `[points, *shape]` parameter arrays of a case."""
    shapes = MANIFEST["problems"][name]["param_shapes"]
    return [ARRAYS[f"{name}/x{index}"] for index in range(len(shapes))]


def stack_over_points(task, arrays, points):
    """An instance with the stored arrays, repeated for each of so many points."""
    instance = task.sample_instance(np.random.default_rng(0))
    unknown = set(arrays) - set(instance) - {"labels"}
    assert not unknown, f"the instance has no {unknown}"
    instance |= {key: array for key, array in arrays.items() if key in instance}
    return {
        key: tf.constant(np.repeat(np.asarray(array)[None], points, axis=0))
        for key, array in instance.items()
    }


def entry_arrays(task, entry):
    """The instance arrays by which the manifest rebuilds a problem-set entry."""
    seed = entry["seed"]
    arrays = _system_arrays(task, seed)
    if "data_shape" in entry:
        columns = entry["data_shape"][1]
        random_state = np.random.RandomState(seed)
        binary = ("DependencyChain", "OutwardSnake", "SparseSoftmaxRegression")
        if entry["spec"]["cls"].removeprefix("OneHot") in binary:
            data = random_state.randint(2, size=(32, columns))
        else:
            data = random_state.randn(32, columns)
        labels = np.random.RandomState(seed + 1).randint(2, size=32)
        arrays |= {"data": data.astype(np.float32), "labels": labels.astype(np.int32)}
    return {key: arrays[key] for key in arrays if key in _instance_names(task)}


def _instance_names(task):
    return task.sample_instance(np.random.default_rng(0))


def _system_arrays(task, seed):
    if isinstance(task, SumTask):
        return {
            f"{index}/{key}": array
            for index, part in enumerate(task.tasks)
            for key, array in _system_arrays(part, seed + 100 * (index + 1)).items()
        }
    if isinstance(task, Quadratic | Norm):
        random_state = np.random.RandomState(seed)
        size = task.dimension
        return {
            "w": random_state.randn(size, size).astype(np.float32),
            "y": random_state.randn(size, 1).astype(np.float32),
        }
    return {}


def entry_point(task, entry):
    """The parameters at which the manifest evaluates a problem-set entry."""
    random_state = np.random.RandomState(entry["seed"] + 2)
    point = [
        random_state.randn(*shape).astype(np.float32) for shape in entry["param_shapes"]
    ]
    if isinstance(task, MatrixMultiplication):
        point = [x / np.linalg.norm(x, axis=0, keepdims=True) for x in point]
    return [x.astype(np.float32) for x in point]


def value_and_gradient(task, parameters, instance):
    """Objective `[tasks]` and gradients, eagerly."""
    parameters = [tf.constant(x) for x in parameters]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value = task.objective(parameters, instance)
    gradients = tape.gradient(
        value, parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return value.numpy(), [gradient.numpy() for gradient in gradients]
