"""How a program that was asked to end says so. No TensorFlow is imported."""

# EX_TEMPFAIL of sysexits.h: try again later.
STATUS_TERMINATED = 75


class Terminated(Exception):
    """SIGTERM came; the run is saved and can be started again."""
