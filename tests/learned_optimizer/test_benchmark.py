"""The benchmark of a step, as a user calls it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from learned_optimizer import load_weights

ROOT = pathlib.Path(__file__).parents[2]
PARAMETERS = 20_000


@pytest.mark.slow
def test_the_last_line_is_an_object_with_the_figures():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "learned_optimizer.benchmark",
            f"--parameters={PARAMETERS}",
            "--tensors=4",
            "--ways=hierarchical_rnn,adam",
            "--repetitions=2",
            "--json",
        ],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in (
        "ns_per_parameter",
        "adam_ns_per_parameter",
        "compile_seconds",
        "state_bytes_per_parameter",
        "extra_peak_bytes",
        "milliseconds",
        "peak_bytes",
    ):
        assert found[name] > 0, name
    assert found["parameters"] == PARAMETERS
    assert found["milliseconds"] * 1e6 == pytest.approx(
        found["ns_per_parameter"] * PARAMETERS
    )
    # 19 float32 a parameter; padding, tensors' states and the weights come on top.
    weights = sum(x.size for x in load_weights("default").meta_parameters.values())
    least = 19 * 4 + 4 * weights / PARAMETERS
    assert least < found["state_bytes_per_parameter"] < 1.1 * least
