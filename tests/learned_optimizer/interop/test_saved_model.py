"""The exported SavedModel does what the Keras optimizer does, wherever it runs."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import c_compiler, output_of, slow
from tests.learned_optimizer.exported import (
    DEFAULT,
    OF_EMPTY_TENSORS,
    SAME,
    NoisyQuadratic,
    by_keras,
    follow_export,
    follow_keras,
    good_call,
    schedule,
    weights_of,
)

ROOT = pathlib.Path(__file__).parents[3]
pytestmark = OF_EMPTY_TENSORS


def test_a_number_of_steps_is_positive_and_needs_a_nominal_rate(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be positive"):
        follow_export(signatures(DEFAULT), NoisyQuadratic.make(), total_steps=0)
    assert "init_with_total_steps" not in signatures("released-v2")


@pytest.mark.parametrize("name", [DEFAULT, slow("attention, nominal")])
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
    "name, value, words",
    [
        ("row_lengths", [3, 0, 3], r"add up to.*\[3 0 3\] \[6\] \[7\] \[7\]"),
        ("row_lengths", [3, 9, 4], "add up to the length of `gradients`"),
        ("row_lengths", [3, -4, 8], "must be 0 or more"),
        # Added up in 32 bits they would fit.
        ("row_lengths", [2**32, 3, 4], "add up to"),
        ("gradients", [1.0] * 6, r"add up to.*\[6\] \[7\]"),
        ("values", [1.0] * 6, r"add up to.*\[7\] \[6\]"),
        (
            "row_lengths",
            [3, 4],
            "state must be of the tensors that `row_lengths` names.*instead of",
        ),
        ("log_learning_rate", [0.0], "state must be of the tensors"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(name, value, words, signatures):
    found = signatures(DEFAULT)
    arguments = good_call(found)
    found["update"](**arguments)
    arguments[name] = tf.constant(value, arguments[name].dtype)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        found["update"](**arguments)


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


def test_it_runs_where_neither_this_package_nor_keras_can_be_imported(export, tmp_path):
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
    files = [tmp_path / "problem.npz", tmp_path / "found.npy"]
    output_of("-I", "-c", CLEAN_PROGRAM, export(DEFAULT), *files, cwd=tmp_path)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, by_keras(DEFAULT)[0], **SAME)


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    """The example, compiled against the library that the tensorflow wheel ships."""
    program = tmp_path_factory.mktemp("c") / "export_c_api"
    library = tf.sysconfig.get_lib()
    command = [
        *(c_compiler(), ROOT / "examples" / "export_c_api.c", "-Wall", "-Werror"),
        *(f"-I{tf.sysconfig.get_include()}", f"-L{library}", "-o", program),
        *("-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"),
        f"-Wl,-rpath,{library}",
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
@pytest.mark.parametrize("name", [DEFAULT, slow("attention, nominal")])
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
