"""The command that exports."""

import os

import pytest
import tensorflow as tf

from learned_optimizer import export, load_weights
from tests.commands import run_command
from tests.conftest import run_python


def test_the_command_exports(tmp_path, capsys):
    path = tmp_path / "model"
    path.mkdir()
    run_command(export, f"--output={path}", "--weights=bootstrap-v1")
    assert capsys.readouterr().out.strip() == os.fspath(path)
    assert load_weights(path).name == "bootstrap-v1"


def test_what_tensorflow_cannot_write_is_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "disk\n full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(SystemExit, match="^export: disk full$"):
        run_command(export, f"--output={tmp_path / 'model'}")
    assert os.listdir(tmp_path) == []


def test_the_command_says_what_is_wrong(tmp_path):
    flags = ["--weights=unknown", f"--output={tmp_path / 'model'}"]
    done = run_python("-m", "learned_optimizer.export", *flags)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("export: `weights` must be the folder of an exported")
    assert os.listdir(tmp_path) == []
