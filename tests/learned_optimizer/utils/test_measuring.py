"""The memory of this process, as the system tells it."""

import mmap

import numpy as np
import pytest

from learned_optimizer.utils.measuring import (
    peak_bytes,
    reset_peak,
    resident_bytes,
    run_module,
)


def test_a_peak_stays_until_it_is_reset():
    reset_peak()
    before = resident_bytes()
    # From the system and back to it: what is freed otherwise may stay with the process.
    # Each page is touched, or it would take no memory.
    area = mmap.mmap(-1, 80_000_000)
    np.frombuffer(area, np.uint8)[:: mmap.PAGESIZE] = 1
    assert resident_bytes() - before > 70_000_000
    area.close()
    assert peak_bytes() - before > 70_000_000
    reset_peak()
    assert peak_bytes() - before < 70_000_000


def test_a_measurement_that_fails_says_why():
    with pytest.raises(RuntimeError, match="exit status 1 of no_such_module"):
        run_module("no_such_module")
