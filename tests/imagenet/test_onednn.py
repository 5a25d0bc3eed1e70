"""oneDNN is asked for where it is safe, before TensorFlow can be imported."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, imagenet
assert "tensorflow" not in sys.modules
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def test_not_asked_for_with_one_cpu():
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
            + SCRIPT,
        ],
        env={
            name: value
            for name, value in os.environ.items()
            if name not in ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize(
    "before, after",
    [
        ({}, "1"),
        ({"TF_NUM_INTRAOP_THREADS": "2"}, "1"),
        # There TensorFlow 2.20's convolutions of a few channels corrupt memory.
        ({"TF_NUM_INTRAOP_THREADS": "1"}, "None"),
        ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0"),
    ],
)
def test_asked_for_unless_threads_or_the_user_say_otherwise(before, after):
    names = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | before,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == after
