"""oneDNN is asked for where it is safe, before TensorFlow can be imported."""

import os
import subprocess
import sys

import pytest

NAMES = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
SCRIPT = """
import os, sys
if sys.argv[1:]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import imagenet
assert "tensorflow" not in sys.modules
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.parametrize(
    "before, arguments, after",
    [
        ({}, [], "1"),
        ({"TF_NUM_INTRAOP_THREADS": "2"}, [], "1"),
        # There TensorFlow 2.20's convolutions of a few channels corrupt memory.
        ({"TF_NUM_INTRAOP_THREADS": "1"}, [], "None"),
        ({}, ["one CPU"], "None"),
        ({"TF_ENABLE_ONEDNN_OPTS": "0"}, [], "0"),
    ],
)
def test_asked_for_unless_threads_or_the_user_say_otherwise(before, arguments, after):
    environment = {k: v for k, v in os.environ.items() if k not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment | before,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == after
