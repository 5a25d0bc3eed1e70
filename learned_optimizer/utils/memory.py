"""The memory of this process."""

import pathlib
import resource
import sys


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
