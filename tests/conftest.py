"""How each test runs: quiet, seeded, on its share of the cores, isolated if it must.

The environment is set before anything imports TensorFlow, and child processes inherit
it. Two markers give a test a process of its own, in which pytest runs that one test
again; the test itself is written as if nothing were special:

    @pytest.mark.distributed
    def test_two_replicas():            # tf.config lists two logical CPUs here
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    @pytest.mark.parametrize("name", on_backends("jax", "torch"))
    def test_on_each_backend(name):     # keras.config.backend() == name here
        ...

One aborted collective spoils every later one, and Keras chooses its backend once a
process: hence the isolation. Their fixtures are set up in both processes, so keep them
cheap.
"""

import importlib.util
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CHILD = "LEARNED_OPTIMIZER_TEST_CHILD"
# Whose tests share nothing, since each has a process of its own.
DEALT_OUT_SINGLY = ("tests/project/test_docs.py",)

# So long that, begun last, they would leave the other core idle.
BEGUN_FIRST = ("tests/project/test_demo.py",)

OPTIONAL_BACKENDS = {"jax": "JAX", "torch": "PyTorch"}

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
# As for the golden data, and alike on every CPU: TensorFlow decides by its model.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Most of a test's time goes into compiling what then runs for milliseconds. A slow test
# (test_hierarchical_rnn.py) meets the golden data with all of XLA's passes too.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # The workers share the cores: one thread each for arithmetic. Two for scheduling,
    # so that an operation that waits for another cannot block it.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def installed(module):
    """Whether `module` could be imported, found out without importing it."""
    return importlib.util.find_spec(module) is not None


def c_compiler():
    """Path of a C compiler, None where there is none."""
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Puts the longest tests in front, before anything divides them into parts."""
    items.sort(key=lambda item: not item.nodeid.startswith(BEGUN_FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile`, but files of tests with processes of their own are dealt out
    test by test: one alone at the end would leave the other core idle."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if file in DEALT_OUT_SINGLY else file

    return Scheduling(config, log)


def pytest_runtest_setup(item):
    """Skips what cannot run here, with a reason that says what would make it run."""
    for mark in item.iter_markers("backend"):
        (name,) = mark.args
        if name != "tensorflow" and name not in OPTIONAL_BACKENDS:
            raise ValueError(
                "Argument `name` of the marker `backend` must be 'tensorflow', 'jax' "
                f"or 'torch'. Received: name={name!r}."
            )
        if not installed(name):
            title = OPTIONAL_BACKENDS.get(name, name)
            pytest.skip(f"{title} is not installed: `make backends` installs it")
    if item.get_closest_marker("compiler") and c_compiler() is None:
        pytest.skip("no C compiler found")


def pytest_sessionstart():
    """Gives the child process of a `distributed` test its two devices."""
    if os.environ.get(CHILD) == "distributed":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a test marked `distributed` or `backend` in a process of its own."""
    if CHILD in os.environ:
        return None
    environment = {}
    backend = pyfuncitem.get_closest_marker("backend")
    if backend:
        environment = {CHILD: "backend", "KERAS_BACKEND": backend.args[0]}
    if pyfuncitem.get_closest_marker("distributed"):
        environment[CHILD] = "distributed"
    if not environment:
        return None
    run_in_child(pyfuncitem, environment)
    return True


def run_python(*arguments, cwd=None, **environment):
    """What Python makes of arguments in a process, on TensorFlow unless told else."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd or ROOT,
        env=inherited_environment() | {"KERAS_BACKEND": "tensorflow"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def output_of(*arguments, **options):
    """What Python prints that runs arguments and ends well; options of `run_python`."""
    done = run_python(*arguments, **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def slow(*values):
    """Values of parameters with which a test is slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def on_backends(*names, is_slow=False):
    """Backends as values of a parameter: each has a process of its own."""
    marks = [pytest.mark.slow] * is_slow
    return [pytest.param(x, marks=[*marks, pytest.mark.backend(x)]) for x in names]


def two_replicas():
    """A strategy of the two devices that a test marked `distributed` has."""
    import tensorflow as tf

    # Also for more than one step in a call, where the default operations hang.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], reduction)


def inherited_environment():
    """What a pytest that a test starts inherits: nothing of this one's own."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}


def run_in_child(item, environment):
    """Runs `item` alone in a new pytest; its outcome becomes this test's outcome."""
    options = ["-q", "-m", "", "-rs", "--tb=short", "-p", "no:cacheprovider"]
    if installed("xdist"):
        options += ["-p", "no:xdist"]
    # A limit on this test is the parent's to enforce: it then ends the child too.
    if installed("pytest_timeout"):
        options += ["--timeout", "0"]
    child = subprocess.run(
        [sys.executable, "-m", "pytest", *options, item.nodeid],
        cwd=item.config.rootpath,
        env=inherited_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if child.returncode:
        pytest.fail(
            f"in a process of its own, exit status {child.returncode}:\n"
            + child.stdout[-8000:],
            pytrace=False,
        )
    print(child.stdout)
    skipped = re.search(r"^SKIPPED \[\d+\] (.*)$", child.stdout, re.MULTILINE)
    if skipped:
        pytest.skip(skipped[1])


@pytest.fixture
def warned(monkeypatch):
    """A list of the words and values of each warning that absl logs."""
    from absl import logging

    said = []
    monkeypatch.setattr(logging, "warning", lambda *words: said.append(words))
    return said


@pytest.fixture
def disk_of(monkeypatch):
    """A function that makes all disks have a number of bytes left."""

    def change(free):
        usage = types.SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return change


@pytest.fixture(autouse=True)
def seeded():
    """Seeds Python, NumPy and, where it is already in use, Keras, before each test."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
