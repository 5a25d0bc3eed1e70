"""Modules of the user's, whose imports register tasks and the like."""

import importlib
import os
import sys
from collections.abc import Sequence

# Of the flag, in the programs that have it.
MODULES = "Of your own, with what their imports register."


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by name, also those in the current folder, as for a script.

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
