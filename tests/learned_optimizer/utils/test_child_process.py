"""A process that measures says what it found, or why it failed."""

import pytest

from learned_optimizer.utils.child_process import run_module


def test_a_measurement_that_fails_says_why():
    with pytest.raises(RuntimeError, match="exit status 1 of no_such_module"):
        run_module("no_such_module")
