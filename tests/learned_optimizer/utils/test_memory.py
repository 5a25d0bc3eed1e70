"""The memory of this process, as the system tells it."""

import numpy as np

from learned_optimizer.utils.memory import peak_bytes, reset_peak, resident_bytes


def test_a_peak_stays_until_it_is_reset():
    reset_peak()
    before = resident_bytes()
    # Touched, or it would take no memory.
    array = np.ones(10_000_000)
    assert resident_bytes() - before > 70_000_000
    del array
    assert peak_bytes() - before > 70_000_000
    reset_peak()
    assert peak_bytes() - before < 70_000_000
