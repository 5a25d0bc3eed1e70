"""Measurements: of memory, of time, and in processes of their own."""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def _status(key) -> int | None:
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024 if key in lines else None


def resident_bytes() -> int:
    """The memory that this process has now."""
    return _status("VmRSS") or peak_bytes()


def reset_peak():
    """Starts `peak_bytes` anew, on Linux."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # Then the peak is that of the whole process.


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = _status("VmHWM")
    if peak is None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak


def median_seconds(run: Callable[[], None], repetitions: int) -> float:
    """Median of the runs after two others; each must wait for its result."""
    seconds = []
    for _ in range(2 + repetitions):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def run_module(module: str, **flags) -> dict:
    """Runs a module with flags, without those that are None; the JSON printed last.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", module]
    command += [f"--{name}={v}" for name, v in flags.items() if v is not None]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            "A measurement must end without an error. Received: exit status "
            f"{done.returncode} of {module}: {done.stderr.strip()[-500:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])
