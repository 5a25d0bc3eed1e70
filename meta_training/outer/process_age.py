"""How long this process has run, its interpreter's start and all imports included."""

import os
import time


def seconds_since_start() -> float:
    """Seconds since this process started, to a hundredth; on Linux alone.

    A clock that a program starts itself would miss the imports before it: those of
    TensorFlow take seconds.
    """
    with open("/proc/self/stat", encoding="utf-8") as file:
        # The second field, the name in parentheses, may hold spaces.
        fields_from_third = file.read().rpartition(")")[2].split()
    # Field 22: the start, in ticks since the machine's.
    started = int(fields_from_third[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
