"""Measurements in processes of their own, which start with nothing compiled."""

import json
import subprocess
import sys


def run_module(module: str, **flags) -> dict:
    """Runs a module; the JSON object that it prints last.

    Args:
        module: What `python -m` runs.
        **flags: Values of its flags; None: the flag is left out.

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
