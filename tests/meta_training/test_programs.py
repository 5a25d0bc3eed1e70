"""What the programs of meta-training have in common, each started as a user would."""

import json
import os
import subprocess
import sys
import time
import types

import pytest
from absl import app, flags

from meta_training import benchmark, calibrate, evaluate
from meta_training.experiments import __main__ as experiments
from tests.conftest import installed

TRAIN = ("meta_training.train", "--preset=default", "--novalidate")


def start(*arguments, **environment):
    """A finished `python -m` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


class TestBackend:
    """Meta-training runs on TensorFlow alone, and says so before anything else."""

    MESSAGE = "The backend of Keras must be 'tensorflow' here. Received: 'jax'"

    def test_train_refuses_another(self, tmp_path):
        if not installed("jax"):
            pytest.skip("JAX is not installed: `make backends` installs it")
        folder = tmp_path / "run"
        done = start(*TRAIN, f"--train_dir={folder}", KERAS_BACKEND="jax")
        assert done.returncode == 1
        assert self.MESSAGE in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        assert not folder.exists()

    @pytest.mark.parametrize(
        "program, arguments",
        [(benchmark, []), (calibrate, []), (evaluate, []), (experiments, ["all"])],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_others_refuse_another(self, program, arguments, monkeypatch):
        monkeypatch.setattr("keras.config.backend", lambda: "jax")
        # Nothing else is asked of the flags before.
        flags = types.SimpleNamespace(output="level.npz", modules=[])
        monkeypatch.setattr(program, "FLAGS", flags)
        with pytest.raises(app.UsageError, match=self.MESSAGE):
            program.main(["program", *arguments])


class TestRefusals:
    """What is found out late ends a program as what is found out early does."""

    def test_of_evaluate(self, monkeypatch, tmp_path):
        values = flags.FlagValues()
        monkeypatch.setattr(evaluate, "FLAGS", values)
        evaluate.define_evaluate_flags(values)
        values(["evaluate", "--baselines=adam", f"--output={tmp_path}"])
        with pytest.raises(app.UsageError, match="must be among Adam.*'adam'"):
            evaluate.main(["evaluate"])

    @pytest.mark.slow
    def test_of_train(self, tmp_path):
        (tmp_path / "endless.py").write_text(
            "import numpy as np\n"
            "from meta_training.tasks import register_task_set\n"
            "from meta_training.tasks.released.algebraic import Bowl\n"
            "class Endless(Bowl):\n"
            "    def objective(self, parameters, instance):\n"
            "        return super().objective(parameters, instance) * np.nan\n"
            "register_task_set('endless')(lambda: [Endless(5.0)])\n"
        )
        done = start(
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
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # To a tick, a hundredth of a second.
    assert 0.49 < float(done.stdout) < time.monotonic() - began + 0.02


@pytest.mark.slow
def test_the_benchmark_ends_with_one_json_object():
    done = start("meta_training.benchmark", "--json", "--repetitions=1", "--parts=1")
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {
        "quadratic_20_x16",
        "quadratic_20_x16_pes",
        "fully_connected_8_8_5_2_x16",
    }
    assert all(rate > 0 for rate in found.values())
