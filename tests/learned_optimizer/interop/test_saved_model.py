"""The exported SavedModel does what the Keras optimizer does, wherever it runs."""

import functools
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config
from learned_optimizer.interop.ragged import flat_shapes
from tests.conftest import c_compiler
from tests.learned_optimizer.by_hand import OptimizerByHand
from tests.learned_optimizer.exported import (
    CONFIGS,
    DEFAULT,
    INITIAL_LEARNING_RATE,
    NOMINAL,
    SHIPPED,
    SLOW_CONFIGS,
    NoisyQuadratic,
    flat,
    follow_export,
    follow_keras,
    schedule,
    weights_of,
)

ROOT = pathlib.Path(__file__).parents[3]
# `by_hand` takes the mean of empty tensors.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Mean of empty slice", "ignore:invalid value", "ignore:__array__"
)

# Rounding: a start that differs in its last bit makes half of that within 50 steps.
SAME = dict(rtol=1e-5, atol=1e-5)


@functools.cache
def by_keras(name):
    """The Keras optimizer's trajectory, and optimizer and variables at its end."""
    return follow_keras(weights_of(name), NoisyQuadratic.make())


@pytest.mark.parametrize(
    "name",
    [*SHIPPED, *CONFIGS]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("fresh", *SLOW_CONFIGS)],
)
def test_it_follows_the_keras_optimizer(name, signatures):
    wanted, optimizer, variables = by_keras(name)
    problem = NoisyQuadratic.make()
    found, states = follow_export(signatures(name), problem)
    # Far more than what rounding could explain.
    assert np.abs(found[-1] - found[0]).max() > 1e-3
    np.testing.assert_allclose(found, wanted, **SAME)
    state = states[-1]
    np.testing.assert_allclose(
        state.get("global_state", []), optimizer.global_state, rtol=1e-4, atol=1e-4
    )
    for tensor, variable in enumerate(variables):
        own = part_of(state, problem, tensor)
        for field, value in optimizer.slots(variable).items():
            field = field.replace("true_value", "true_values")
            np.testing.assert_allclose(own[field].T, value, rtol=1e-4, atol=1e-4)
        if "tensor_state" in own:
            np.testing.assert_allclose(
                own["tensor_state"], optimizer.tensor_state(variable), atol=1e-4
            )
        if "steps_taken" in own:
            assert own["steps_taken"] == problem.steps


def part_of(state, problem, tensor):
    """What a state says of one tensor: `{name: [features] or [features, n]}`."""
    stop = sum(problem.row_lengths[: tensor + 1])
    rows = slice(stop - problem.row_lengths[tensor], stop)
    of_tensors = ("tensor_state", "started", "log_size", "steps_taken")
    return {
        name: value[..., tensor if name in of_tensors else rows]
        for name, value in state.items()
        if name not in ("global_state", "horizon")
    }


@pytest.mark.parametrize(
    "name",
    [DEFAULT, pytest.param("attention, nominal", marks=pytest.mark.slow)],
)
def test_it_follows_the_keras_optimizer_to_a_known_end_and_beyond(name, signatures):
    problem = NoisyQuadratic.make()
    wanted, _, _ = follow_keras(weights_of(name), problem, total_steps=70)
    found, states = follow_export(signatures(name), problem, total_steps=70)
    # The schedule counts.
    assert np.abs(found[60] - by_keras(name)[0][60]).max() > 1e-3
    np.testing.assert_allclose(found, wanted, **SAME)
    np.testing.assert_array_equal(states[0]["horizon"], [70, 0])
    np.testing.assert_array_equal(states[-1]["horizon"], [70, 100])


def test_a_number_of_steps_is_positive_and_needs_a_nominal_rate(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be positive"):
        follow_export(signatures(DEFAULT), NoisyQuadratic.make(), total_steps=0)
    assert "init_with_total_steps" not in signatures("released-v2")


@pytest.mark.parametrize(
    "name",
    [DEFAULT, pytest.param("attention, nominal", marks=pytest.mark.slow)],
)
def test_it_compiles_with_xla(name, signatures):
    problem = NoisyQuadratic.make()
    plain = signatures(name)
    compiled = {
        key: tf.function(
            lambda key=key, **arguments: plain[key](**arguments), jit_compile=True
        )
        for key in ("init", "update")
    }
    found, _ = follow_export(compiled, problem)
    np.testing.assert_allclose(found, follow_export(plain, problem)[0], **SAME)


@pytest.mark.parametrize(
    "shapes",
    [[(7,)], [(1,)], [(0,), (3,), (0,)], [(3, 2), (5,)] * 250],
    ids=["one tensor", "one element", "empty ones", "500 tensors"],
)
def test_any_number_of_tensors(shapes, signatures):
    problem = NoisyQuadratic.make(shapes, steps=5)
    found, _ = follow_export(signatures(DEFAULT), problem)
    optimizer = OptimizerByHand(
        problem.start, weights_of(DEFAULT), INITIAL_LEARNING_RATE
    )
    for step in range(problem.steps):
        optimizer.call(problem.gradients(optimizer.values, step))
        np.testing.assert_allclose(found[step], flat(optimizer.values), **SAME)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_elements_at_all(lengths, signatures):
    found = signatures(DEFAULT)
    lengths, none = tf.constant(lengths, tf.int64), tf.zeros([0])
    state = found["init"](row_lengths=lengths, initial_learning_rate=tf.constant(0.1))
    results = found["update"](
        gradients=none,
        values=none,
        row_lengths=lengths,
        learning_rate=tf.constant(1.0),
        **state,
    )
    assert results["values"].shape == (0,)
    assert results["hidden_state"].shape == (10, 0)
    assert results["tensor_state"].shape == (20, len(lengths))
    assert np.all(np.isfinite(results["tensor_state"]))


@pytest.mark.parametrize(
    "name",
    ["attention, nominal", pytest.param(DEFAULT, marks=pytest.mark.slow)],
)
def test_a_gradient_that_is_not_finite_leaves_its_tensor(name, signatures):
    problem = NoisyQuadratic.make(steps=12)

    def spoil(step, gradients):
        if step in (0, 1, 7):
            gradients[1].reshape(-1)[2] = np.nan
        if step in (0, 4):
            gradients[0].reshape(-1)[0] = -np.inf
        if step == 9:
            for gradient in gradients:
                gradient.reshape(-1)[:1] = np.inf

    wanted, optimizer, _ = follow_keras(weights_of(name), problem, spoil=spoil)
    # Step 9 spoils the four tensors that have elements.
    assert optimizer.skipped_steps == 3 + 2 + 4
    found, states = follow_export(signatures(name), problem, spoil=spoil)
    np.testing.assert_allclose(found, wanted, **SAME)

    def of_tensor(tensor, step):
        """Its values and state after so many steps."""
        values = (
            found[step - 1]
            if step
            else np.concatenate([value.reshape(-1) for value in problem.start])
        )
        return part_of({"values": values, **states[step]}, problem, tensor)

    for tensor, step in ((1, 0), (1, 1), (1, 7), (1, 9), (0, 0), (0, 4), (0, 9)):
        after = of_tensor(tensor, step + 1)
        for field, value in of_tensor(tensor, step).items():
            # The first update of all finds these for every tensor.
            if step > 0 or field not in ("log_size", "true_values"):
                np.testing.assert_array_equal(after[field], value, field)
    assert np.all(of_tensor(1, 3)["values"] != of_tensor(1, 2)["values"])
    assert np.all(of_tensor(0, 2)["values"] != of_tensor(0, 1)["values"])


def test_nothing_changes_where_no_gradient_is_finite(signatures):
    found = signatures("attention, nominal")
    arguments = good_call(found)
    # The empty tensor moves nothing, but takes its step, and so is the step counted.
    arguments["row_lengths"] = tf.constant([3, 2, 2], tf.int64)
    results = found["update"](**(arguments | {"gradients": tf.fill([7], np.nan)}))
    arguments["horizon"] += [0.0, 1.0]
    for name, value in results.items():
        np.testing.assert_array_equal(value, arguments[name], name)


def test_each_element_may_start_at_a_rate_of_its_own(signatures):
    problem = NoisyQuadratic.make(steps=10)
    generator = np.random.default_rng(1)
    logs = [np.float32(generator.uniform(-7, -2, (1, n))) for n in problem.row_lengths]
    optimizer = OptimizerByHand(problem.start, weights_of("bootstrap-v1"), logs)
    found, _ = follow_export(
        signatures("bootstrap-v1"), problem, start=np.exp(flat(logs))
    )
    for step in range(problem.steps):
        optimizer.call(problem.gradients(optimizer.values, step))
        np.testing.assert_allclose(found[step], flat(optimizer.values), **SAME)


def good_call(signatures):
    """Arguments of an update that are in order."""
    lengths = tf.constant([3, 0, 4], tf.int64)
    state = signatures["init"](
        row_lengths=lengths, initial_learning_rate=tf.constant(0.1)
    )
    return dict(
        gradients=tf.ones([7]),
        values=tf.ones([7]),
        row_lengths=lengths,
        learning_rate=tf.constant(1.0),
        **state,
    )


BAD_UPDATES = {
    "too short": (
        dict(row_lengths=[3, 0, 3]),
        r"add up to.*\[3 0 3\] \[6\] \[7\] \[7\]",
    ),
    "too long": (dict(row_lengths=[3, 9, 4]), "add up to the length of `gradients`"),
    "negative": (dict(row_lengths=[3, -4, 8]), "must be 0 or more"),
    "wrapped around": (dict(row_lengths=[2**32, 3, 4]), "add up to"),
    "fewer gradients": (dict(gradients=[1.0] * 6), r"add up to.*\[6\] \[7\]"),
    "fewer values": (dict(values=[1.0] * 6), r"add up to.*\[7\] \[6\]"),
    "another number of tensors": (
        dict(row_lengths=[3, 4]),
        "state must be of the tensors that `row_lengths` names.*instead of",
    ),
    "the state of one element": (
        dict(log_learning_rate=[0.0]),
        "state must be of the tensors",
    ),
}


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_lengths_that_do_not_fit_are_refused(name, signatures):
    changes, words = BAD_UPDATES[name]
    found = signatures(DEFAULT)
    arguments = good_call(found)
    found["update"](**arguments)
    changes = {
        key: tf.constant(value, arguments[key].dtype) for key, value in changes.items()
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        found["update"](**(arguments | changes))


@pytest.mark.parametrize(
    "lengths, rate, words",
    [
        ([3, -1], 0.1, "`row_lengths` must be 0 or more"),
        ([3], 0.0, "`initial_learning_rate` must be positive"),
        ([3], [0.1, -0.1, 0.1], "`initial_learning_rate` must be positive"),
        ([3], float("nan"), "`initial_learning_rate` must be positive"),
        ([3], [0.1, 0.1], "shape"),
    ],
)
def test_a_start_that_cannot_be_is_refused(lengths, rate, words, signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        signatures(DEFAULT)["init"](
            row_lengths=tf.constant(lengths, tf.int64),
            initial_learning_rate=tf.constant(rate),
        )


CLEAN_PROGRAM = """
import sys

for name in ("learned_optimizer", "keras", "tf_keras"):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
arrays = np.load(sys.argv[2])
row_lengths = tf.constant(arrays["row_lengths"])
state = model.signatures["init"](
    row_lengths=row_lengths, initial_learning_rate=tf.constant(0.01)
)
values, found = tf.constant(arrays["start"]), []
for noise, rate in zip(arrays["noise"], arrays["rates"]):
    gradients = arrays["curvatures"] * (values - arrays["targets"]) + noise
    state = model.signatures["update"](
        gradients=gradients, row_lengths=row_lengths, learning_rate=tf.constant(rate),
        **{"values": values, **state},
    )
    values = state.pop("values")
    found.append(values.numpy())
assert not any(
    module and name.partition(".")[0] in ("learned_optimizer", "keras", "tf_keras")
    for name, module in sys.modules.items()
)
np.save(sys.argv[3], found)
"""


@pytest.fixture
def clean_python(tmp_path):
    """A Python of a new virtual environment with TensorFlow alone."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "venv", python.parents[1]], check=True, cwd=tmp_path
    )
    constraints = ROOT / "constraints.txt"
    options = ["--quiet", "--disable-pip-version-check", "--constraint", constraints]
    subprocess.run(
        [python, "-m", "pip", "install", *options, "tensorflow"],
        check=True,
        cwd=tmp_path,
    )
    look = "import importlib.util; print(importlib.util.find_spec('learned_optimizer'))"
    found = subprocess.run(
        [python, "-I", "-c", look], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "None"
    return python


def test_it_runs_where_neither_this_package_nor_keras_can_be_imported(export, tmp_path):
    check_it_runs(sys.executable, export, tmp_path)


@pytest.mark.slow
def test_it_runs_in_an_environment_with_tensorflow_alone(
    clean_python, export, tmp_path
):
    check_it_runs(clean_python, export, tmp_path)


def check_it_runs(python, export, tmp_path):
    """`CLEAN_PROGRAM` under an interpreter does what the Keras optimizer does."""
    problem = NoisyQuadratic.make()
    whole = problem.flat()
    np.savez(
        tmp_path / "problem.npz",
        row_lengths=np.array(problem.row_lengths, np.int64),
        start=whole.start[0],
        targets=whole.targets[0],
        curvatures=whole.curvatures[0],
        noise=whole.noise[0],
        rates=np.array([schedule(step) for step in range(problem.steps)]),
    )
    done = subprocess.run(
        [
            python,
            "-I",
            "-c",
            CLEAN_PROGRAM,
            export(DEFAULT),
            tmp_path / "problem.npz",
            tmp_path / "found.npy",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, by_keras(DEFAULT)[0], **SAME)


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    """The example, compiled against the library that the tensorflow wheel ships."""
    program = tmp_path_factory.mktemp("c") / "export_c_api"
    library = tf.sysconfig.get_lib()
    command = [
        c_compiler(),
        ROOT / "examples" / "export_c_api.c",
        "-Wall",
        "-Werror",
        f"-I{tf.sysconfig.get_include()}",
        f"-L{library}",
        "-l:libtensorflow_cc.so.2",
        "-l:libtensorflow_framework.so.2",
        f"-Wl,-rpath,{library}",
        "-o",
        program,
    ]
    # It takes the default linker 15 seconds to read that library.
    if shutil.which("ld.gold"):
        command.append("-fuse-ld=gold")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


class CProblem(NoisyQuadratic):
    """The problem of the C program, drawn from the same generator."""

    @classmethod
    def make(cls, steps):
        seed = 1

        def draw(count):
            nonlocal seed
            found = []
            for _ in range(count):
                seed = (seed * 1664525 + 1013904223) % 2**32
                found.append((seed >> 8) / 8388608 - 1)
            return np.float32(found)

        def split(array):
            return np.split(array, [6, 6, 11], axis=-1)

        start, targets, curvatures = draw(12), draw(12), 1.5 + draw(12)
        noise = draw(12 * steps).reshape(steps, 12) / 2
        return cls(split(start), split(targets), split(curvatures), split(noise))


@pytest.mark.compiler
@pytest.mark.parametrize(
    "name",
    [DEFAULT, pytest.param("attention, nominal", marks=pytest.mark.slow)],
)
def test_it_runs_in_a_c_program(name, export, c_program):
    problem = CProblem.make(100)
    wanted, *_ = follow_keras(weights_of(name), problem, 0.02, lambda step: 1.0)
    done = subprocess.run(
        [c_program, export(name), "100", "0.02"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float64)
    assert np.abs(found[-1] - found[0]).max() > 0.1
    np.testing.assert_allclose(found, wanted, **SAME)


@pytest.mark.compiler
def test_the_c_program_says_what_is_wrong(c_program, tmp_path):
    done = subprocess.run([c_program, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("export_c_api: the SavedModel cannot be loaded: Could not")


def test_the_documentation_names_the_whole_state():
    text = (ROOT / "docs" / "export.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `\[(.*?)\]` \|", text, re.MULTILINE)
    config = Config(attention=True, nominal=NOMINAL)
    shapes = flat_shapes(config, "elements", "tensors")
    assert "`init_with_total_steps(" in text
    assert dict(rows) == {
        name: ", ".join(map(str, shape)) for name, shape in shapes.items()
    }
