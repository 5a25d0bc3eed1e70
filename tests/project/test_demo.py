"""The demo runs from start to end and shows what it says."""

import subprocess
import sys

import pytest

from tests.project.test_repository import ROOT


@pytest.mark.slow
def test_digits_demo(tmp_path):
    figure = tmp_path / "new" / "digits.png"
    command = [sys.executable, "examples/digits.py", "--steps=100"]
    result = subprocess.run(
        [*command, f"--output={figure}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    rows = {line[:28].strip(): line[28:].split() for line in result.stdout.splitlines()}
    assert rows["training loss at step 0"][0] == rows["training loss at step 0"][1]
    for loss in rows["training loss at step 100"]:
        # Far below the ln 10 = 2.3 of a network that has learned nothing.
        assert float(loss) < 1.0
    assert figure.read_bytes().startswith(b"\x89PNG")
