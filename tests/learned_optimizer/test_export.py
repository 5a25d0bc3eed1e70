"""The exported SavedModel: it does what the Keras optimizer does, and is read back."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from learned_optimizer import (
    Config,
    HierarchicalRNN,
    fresh_weights,
    list_weights,
    load_weights,
)
from learned_optimizer import export as export_command
from learned_optimizer.interop import saved_model_files
from learned_optimizer.interop.ragged import flat_shapes
from learned_optimizer.interop.saved_model_files import CARD, export_weights
from learned_optimizer.keras_step import exporting
from learned_optimizer.weights import ALIASES
from tests.conftest import c_compiler
from tests.learned_optimizer.by_hand import OptimizerByHand, perturbed_weights
from tests.learned_optimizer.exported import (
    INITIAL_LEARNING_RATE,
    NoisyQuadratic,
    flat,
    follow_export,
    follow_keras,
    schedule,
)

ROOT = pathlib.Path(__file__).parents[2]
# `by_hand` takes the mean of empty tensors.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Mean of empty slice", "ignore:invalid value", "ignore:__array__"
)
# Rounding: a start that differs in its last bit makes half of that within 50 steps.
SAME = dict(rtol=1e-5, atol=1e-5)
SHIPPED = sorted(set(list_weights()) - set(ALIASES))
# The version that `HierarchicalRNN()` has; the alias moves on.
DEFAULT = ALIASES["default"]
NOMINAL = dict(ratio=0.5, memory=3.0, decay_steps=20.0)
# Fewer tensors than the problem has, and smaller than some of them are.
DEEP = NOMINAL | dict(largest=0.5, shallow_tensors=2.0)
CONFIGS = {
    "attention, nominal": dict(attention=True, nominal=DEEP),
}
SLOW_CONFIGS = {
    "one level": dict(level_sizes=(1,), extreme_indicator=True),
    "no output scale": dict(
        dynamic_output_scale=False, relative_learning_rate=False, attention=True
    ),
    "attention": dict(attention=True),
    "two levels": dict(
        level_sizes=(4, 6), gradient_timescales=2, learning_rate_shortcut=True
    ),
    "one timescale": dict(gradient_timescales=1, gradient_products=False),
    "last tensor": dict(global_rnn_input="last_tensor", learnable_decay=False),
    "tensor mean": dict(learning_rate_mean="tensor", multiple_scale_decays=True),
    "few inputs": dict(
        log_mean_squares=False, gradient_products=False, gradient_shortcut=False
    ),
    "nominal": dict(nominal=NOMINAL, learnable_input_decay=False),
}


@functools.cache
def weights_of(name):
    """Shipped weights, or perturbed ones of a row of the tables."""
    if name in SHIPPED:
        return load_weights(name)
    if name == "fresh":
        return fresh_weights(seed=3)
    return perturbed_weights(**(CONFIGS | SLOW_CONFIGS)[name])


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A function from the name of weights to the folder of their SavedModel."""
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def exported(name):
        return export_weights(weights_of(name), folder / name.replace(", ", "_"))

    return exported


@pytest.fixture(scope="module")
def signatures(export):
    """A function from the name of weights to the loaded signatures."""

    @functools.cache
    def loaded(name):
        model = tf.saved_model.load(os.fspath(export(name)))
        # The signatures alone do not keep the variables alive.
        return {"model": model, **model.signatures}

    return loaded


@functools.cache
def by_keras(name):
    """The Keras optimizer's trajectory, and optimizer and variables at its end."""
    return follow_keras(weights_of(name), NoisyQuadratic.make())


# What it computes.


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


# Where it runs.

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
    constraints = pathlib.Path(__file__).parents[2] / "constraints.txt"
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


# On disk.


@pytest.mark.parametrize("name", [*SHIPPED, "attention, nominal"])
def test_it_is_small_and_names_no_path(name, export):
    files = [path for path in export(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 350_000
    for path in files:
        assert os.fspath(export(name).parent).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", [*SHIPPED, *CONFIGS])
def test_it_is_read_back(name, export):
    original = weights_of(name)
    for path in (export(name), os.fspath(export(name))):
        optimizer = HierarchicalRNN(weights=path)
        found = optimizer.weights
        assert found.name == original.name and not found.shipped
        assert found.config == original.config
        assert found.initial_learning_rate == original.initial_learning_rate
        assert found.card == original.card
        for key, value in original.meta_parameters.items():
            np.testing.assert_array_equal(found.meta_parameters[key], value, key)
    # Its configuration holds the numbers, and needs the folder no longer.
    copy = HierarchicalRNN.from_config(optimizer.get_config())
    np.testing.assert_array_equal(copy.weights.to_flat(), original.to_flat())


@pytest.mark.backend("jax")
@pytest.mark.slow
def test_it_is_read_under_another_backend(tmp_path):
    program = (
        "import sys; from learned_optimizer import load_weights; "
        "from learned_optimizer.export import export_weights; "
        "export_weights(load_weights('default'), sys.argv[1])"
    )
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "model"], env=environment, check=True
    )
    found = HierarchicalRNN(weights=tmp_path / "model").weights
    np.testing.assert_array_equal(found.to_flat(), load_weights("default").to_flat())
    with pytest.raises(ValueError, match="must be 'tensorflow'.*Received: 'jax'"):
        HierarchicalRNN().export(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_exported_is_what_the_optimizer_has_now(tmp_path):
    optimizer = HierarchicalRNN()
    optimizer.build([keras.Variable(np.ones(3, np.float32))])
    assert optimizer.export(tmp_path / "one") == tmp_path / "one"
    one = load_weights(tmp_path / "one")
    assert one.name == DEFAULT
    assert one.card == load_weights("default").card
    optimizer._meta_learning_rate_bias.assign([0.25])
    optimizer.export(tmp_path / "two")
    two = load_weights(tmp_path / "two")
    assert two.name == f"{DEFAULT}-changed" and two.card == {}
    assert two.meta_parameters["learning_rate_bias"] == [0.25]
    for key, value in two.meta_parameters.items():
        if key != "learning_rate_bias":
            np.testing.assert_array_equal(value, one.meta_parameters[key], key)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.5},
        {"initial_learning_rate": 1e-2},
        {"weight_decay": 0.1},
        {"clipnorm": 1.0, "gradient_accumulation_steps": 4},
        {"use_ema": True, "loss_scale_factor": 8.0},
        {},
    ],
    ids=",".join,
)
def test_settings_that_are_not_exported_are_named(settings, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        exporting.logging, "warning", lambda text, *values: said.append(values)
    )
    HierarchicalRNN(**settings).export(tmp_path / "model")
    named = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    assert [sorted(values[0].split(", ")) for values in said] == (
        [sorted(named.split(", "))] if settings else []
    )


def test_a_subclass_that_needs_arguments_is_exported(tmp_path):
    class Named(HierarchicalRNN):
        def __init__(self, owner, **arguments):
            super().__init__(**arguments)
            self.owner = owner

    path = Named("someone").export(tmp_path / "model")
    assert load_weights(path).name == DEFAULT


def change_card(**changes):
    def damage(path):
        card = json.loads((path / CARD).read_text())
        card.update(changes)
        (path / CARD).write_text(json.dumps(card))

    return damage


def change_config(path):
    card = json.loads((path / CARD).read_text())
    card["config"]["nominal"]["ratio"] = 0.06
    (path / CARD).write_text(json.dumps(card))


def change_variables(path):
    """Another model's numbers, in order by themselves."""
    other = export_weights(perturbed_weights(nominal=NOMINAL), path.parent / "other")
    shutil.rmtree(path / "variables")
    shutil.copytree(other / "variables", path / "variables")


def flip_a_bit(path):
    file = path / "variables" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(bytes(content))


def foreign_model(path):
    shutil.rmtree(path)
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    tf.saved_model.save(module, os.fspath(path))


def foreign_model_with_our_card(path):
    card = (path / CARD).read_text()
    foreign_model(path)
    (path / CARD).parent.mkdir()
    (path / CARD).write_text(card)


BAD_FOLDERS = {
    "another's SavedModel": (foreign_model, "must be a SavedModel that Hier.*Received"),
    "another's with our card": (
        foreign_model_with_our_card,
        "must be a checkpoint with",
    ),
    "an empty folder": (
        lambda path: (shutil.rmtree(path), path.mkdir()),
        "must be a SavedModel that Hier",
    ),
    "no card": (lambda path: (path / CARD).unlink(), "assets.extra/card.json"),
    "no program": (
        lambda path: (path / "saved_model.pb").unlink(),
        "with saved_model.pb",
    ),
    "no variables": (
        lambda path: shutil.rmtree(path / "variables"),
        "must be a checkpoint",
    ),
    "a bit of the variables": (flip_a_bit, "must be a checkpoint with.*[Cc]hecksum"),
    "other variables": (change_variables, "must have the sha256 that the card names"),
    "another name": (change_card(name="default-v9"), "must have the sha256"),
    "another rate": (change_card(initial_learning_rate=0.1), "must have the sha256"),
    "another nominal rate": (change_config, "must have the sha256"),
    "another history": (change_card(card={}), "must have the sha256"),
    "another format": (change_card(format="other/1"), "format.*Received.*'other/1'"),
    "more in the card": (change_card(more=1), "must be an object of the keys"),
    "a card that is no JSON": (
        lambda path: (path / CARD).write_text("{"),
        "must be JSON",
    ),
    "a card that is a list": (
        lambda path: (path / CARD).write_text("[]"),
        "must be an object of the keys.*Received: list",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_refused(name, export, tmp_path):
    damage, words = BAD_FOLDERS[name]
    path = tmp_path / "model"
    shutil.copytree(export(DEFAULT), path)
    load_weights(path)
    damage(path)
    with pytest.raises(ValueError, match=words):
        HierarchicalRNN(weights=path)


def contents(folder):
    """Every file below a folder."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_export_takes_the_place_of_an_earlier_one(export, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(export("bootstrap-v1"), path)
    (path / "assets.extra" / "old").write_text("of the earlier one")
    export_weights(weights_of(DEFAULT), path)
    assert load_weights(path).name == DEFAULT
    assert set(contents(path)) == set(contents(export(DEFAULT)))
    # Nothing is left beside it.
    assert os.listdir(path.parent) == ["model"]


@pytest.mark.parametrize(
    "what, exists",
    [
        ("saving", False),
        ("the card", True),
        ("renaming", False),
        ("renaming", True),
        ("the second rename", True),
    ],
)
def test_an_export_that_fails_leaves_what_was_there(
    what, exists, export, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    if exists:
        shutil.copytree(export("bootstrap-v1"), path)
    before = contents(tmp_path)
    renames = []
    replace = os.replace

    def fail(*_, **__):
        raise OSError("disk full")

    def replace_or_fail(source, target):
        renames.append(source)
        # The folder itself is renamed last but for the way back.
        if target == path and len(renames) <= 2:
            raise OSError("disk full")
        replace(source, target)

    if what == "saving":
        monkeypatch.setattr(tf.saved_model, "save", fail)
    elif what == "the card":
        monkeypatch.setattr(pathlib.Path, "write_text", fail)
    elif what == "renaming":
        monkeypatch.setattr(saved_model_files.os, "replace", fail)
    else:
        monkeypatch.setattr(saved_model_files.os, "replace", replace_or_fail)
    with pytest.raises(OSError, match="disk full"):
        export_weights(weights_of(DEFAULT), path)
    monkeypatch.undo()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("what", ["folder", "file", "SavedModel"])
def test_what_is_no_export_is_not_replaced(what, tmp_path):
    path = tmp_path / "mine"
    if what == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("years of work")
    elif what == "file":
        path.write_text("years of work")
    else:
        path.mkdir()
        foreign_model(path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="new or empty folder.*Received: '.*mine'"):
        HierarchicalRNN().export(path)
    assert contents(tmp_path) == before


def test_the_command_exports(tmp_path, capsys):
    values = flags.FlagValues()
    export_command.define_flags(values)
    path = tmp_path / "model"
    path.mkdir()
    values(["export", f"--output={path}", "--weights=bootstrap-v1"])
    export_command.main(["export"], values)
    assert capsys.readouterr().out.strip() == os.fspath(path)
    assert load_weights(path).name == "bootstrap-v1"


def test_what_tensorflow_cannot_write_is_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "disk\n full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    values = flags.FlagValues()
    export_command.define_flags(values)
    values(["export", f"--output={tmp_path / 'model'}"])
    with pytest.raises(SystemExit, match="^export: disk full$"):
        export_command.main(["export"], values)
    assert os.listdir(tmp_path) == []


def test_the_command_says_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "learned_optimizer.export", "--weights=unknown"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'model'}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("export: `weights` must be the folder of an exported")
    assert os.listdir(tmp_path) == []
