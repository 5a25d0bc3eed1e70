"""User modules that register tasks, optimizers and so on when they are imported."""

import importlib
import os
import sys
from collections.abc import Sequence

# The help of the flag.
MODULES = "Your modules, which register tasks and so on when they are imported."


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by name, also from the current folder, as for a script.

    Raises:
        ValueError: One cannot be imported.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                "--modules must name modules that can be imported. Received: "
                f"{name!r}: {error}"
            ) from error
