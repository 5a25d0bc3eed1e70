"""What the programs of meta-training have in common, each started as a user would."""

import json
import os
import time
import types

import pytest
from absl import app

from meta_training import benchmark, calibrate, evaluate
from meta_training.experiments import __main__ as experiments
from tests.commands import run_command
from tests.conftest import installed, output_of, run_python

TRAIN = ("-m", "meta_training.train", "--preset=default", "--novalidate")
MESSAGE = "The backend of Keras must be 'tensorflow' here. Received: 'jax'"


def test_train_refuses_another_backend(tmp_path):
    if not installed("jax"):
        pytest.skip("JAX is not installed: `make backends` installs it")
    folder = tmp_path / "run"
    done = run_python(*TRAIN, f"--train_dir={folder}", KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert MESSAGE in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    "program, arguments",
    [(benchmark, []), (calibrate, []), (evaluate, []), (experiments, ["all"])],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_others_refuse_another_backend(program, arguments, monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    # Nothing else is asked of the flags before.
    flags = types.SimpleNamespace(output="level.npz", modules=[])
    monkeypatch.setattr(program, "FLAGS", flags)
    with pytest.raises(app.UsageError, match=MESSAGE):
        program.main(["program", *arguments])


def test_what_evaluate_finds_out_late_is_a_usage_error(tmp_path):
    arguments = ("--baselines=adam", f"--output={tmp_path}")
    with pytest.raises(app.UsageError, match="must be among Adam.*'adam'"):
        run_command(evaluate, *arguments, define_flags=evaluate.define_evaluate_flags)


@pytest.mark.slow
def test_what_train_finds_out_late_is_one_line(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import numpy as np\n"
        "from meta_training.tasks import register_task_set\n"
        "from meta_training.tasks.released.algebraic import Bowl\n"
        "class Endless(Bowl):\n"
        "    def objective(self, parameters, instance):\n"
        "        return super().objective(parameters, instance) * np.nan\n"
        "register_task_set('endless')(lambda: [Endless(5.0)])\n"
    )
    done = run_python(
        *(*TRAIN, f"--train_dir={tmp_path / 'run'}", "--task_set=endless"),
        *("--modules=endless", "--init_weights=bootstrap-v1"),
        *("--min_window_steps=2", "--window_steps=2", "--max_window_steps=2"),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]),
    )
    assert done.returncode == 1
    assert "objective of a task must be finite at its start" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_age_of_a_process_counts_all_before_the_import():
    script = (
        "import time; time.sleep(0.5)\n"
        "from meta_training.benchmark import seconds_since_start\n"
        "print(seconds_since_start())"
    )
    began = time.monotonic()
    age = float(output_of("-c", script))
    # To a tick, a hundredth of a second.
    assert 0.49 < age < time.monotonic() - began + 0.02


@pytest.mark.slow
def test_the_benchmark_ends_with_one_json_object():
    flags = ("--json", "--repetitions=1", "--parts=1")
    output = output_of("-m", "meta_training.benchmark", *flags)
    found = json.loads(output.splitlines()[-1])
    quadratics = "quadratic_20_x16", "quadratic_20_x16_pes"
    assert set(found) == {*quadratics, "fully_connected_8_8_5_2_x16"}
    assert all(rate > 0 for rate in found.values())
