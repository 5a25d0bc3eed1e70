"""The demos run from start to end and show what they say."""

import pathlib
import subprocess
import sys

import pytest

from tests.conftest import output_of
from tests.project.test_repository import ROOT

pytestmark = pytest.mark.slow


def output_of_shell(command):
    options = dict(shell=True, cwd=ROOT, stdin=subprocess.DEVNULL, text=True)
    result = subprocess.run(command, capture_output=True, **options)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_digits_demo(tmp_path):
    figure = tmp_path / "new" / "digits.png"
    output = output_of("examples/digits.py", "--steps=100", f"--output={figure}")
    rows = {line[:28].strip(): line[28:].split() for line in output.splitlines()}
    assert rows["training loss at step 0"][0] == rows["training loss at step 0"][1]
    for loss in rows["training loss at step 100"]:
        # Far below the ln 10 = 2.3 of a network that has learned nothing.
        assert float(loss) < 1.0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_running_averages_lag_at_first():
    program = "examples/running_averages.py"
    output = output_of(program, "--steps=250", "--weights=")
    steps, *rows = output.splitlines()
    assert steps.split() == ["250"]
    losses = [float(row.split()[-1]) for row in rows]
    # Adam at two rates: far below ln 10 in training, ten times as high under averages.
    assert len(losses) == 4 and max(losses[::2]) < 0.5
    assert losses[1] > 10 * losses[0] and losses[3] > 10 * losses[2]


def test_imagenet_demo(tmp_path):
    """The command of `make demo`, with fewer steps."""
    flags = [
        # Loops of one length, and of a network of an eighth of the width.
        *("--train_steps=5", "--models=resnet_v2_50_narrow"),
        *("--num_images=40", "--num_validation_images=10"),
        *("--image_size=32", "--batch_size=4", f"--data_dir={tmp_path / 'data'}"),
        f"--output={tmp_path / 'demo'}",
    ]
    binaries = pathlib.Path(sys.executable).parent
    # Newer than all that the environment is made from, else make would make it anew.
    installed = tmp_path / "installed"
    installed.touch()
    variables = f"BIN={binaries} INSTALLED={installed} ARGS='{' '.join(flags)}'"
    make = "make --dry-run --no-print-directory demo"
    output = output_of_shell(output_of_shell(f"{make} {variables}"))
    table = [line for line in output.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in table[1:]] == [
        "HierarchicalRNN()",
        "rmsprop, usual rate",
    ]
    picture = tmp_path / "demo" / "resnet_v2_50_narrow.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "demo" / "report.md") in output
