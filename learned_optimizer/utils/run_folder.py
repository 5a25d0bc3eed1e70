"""The folder of a run, and the settings in it by which the run is known again."""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from learned_optimizer.utils.atomic_write import atomic_write


def read_identity(path: pathlib.Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None where there is none.

    Raises:
        ValueError: It is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must be the settings of a run. Received: no JSON")
    return found


def verify(
    path: pathlib.Path,
    identity: Mapping[str, Any],
    defaults: Mapping[str, Any],
    may_change: Collection[str] | None = None,
) -> None:
    """Finds out whether a folder can be that of a run; writes nothing.

    Args:
        path: The file of the settings, in the folder.
        identity: The settings of the run, as JSON types.
        defaults: What a run had whose file lacks a setting.
        may_change: Those of the settings that may be others; the file must have none
            that are unknown. None: all must be the same, and unknown ones are ignored.

    Raises:
        ValueError: The folder is that of another run, or holds other files.
    """
    found = read_identity(path)
    if found is None:
        _check_free(path)
        return
    there = _completed(found, defaults)
    names = set(identity) if may_change is None else {*identity, *found} - {*may_change}
    differing = [
        f"{name} ({there.get(name)!r} there, {identity.get(name)!r} now)"
        for name in sorted(names)
        if there.get(name) != identity.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path.parent} must be new, or go on with the settings of its run. "
            f"Received: others for {', '.join(differing)}"
        )


def _completed(found, defaults):
    """`found` with what it lacks of `defaults`, also in settings that are dicts."""
    nested = {
        name: _completed(value, defaults[name])
        for name, value in found.items()
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
    }
    return {**defaults, **found, **nested}


def _check_free(path):
    folder = path.parent
    if not folder.exists():
        return
    # A process that was killed in `write_or_verify` left a file like the first ones.
    if not folder.is_dir() or any(
        not found.name.startswith((f".{path.name}.", ".lock"))
        for found in folder.iterdir()
    ):
        raise ValueError(
            "The folder of a run must be new, empty, or that of a run to go on with. "
            f"Received: {folder}, which holds other things"
        )


def write_or_verify(
    path: pathlib.Path,
    identity: Mapping[str, Any],
    defaults: Mapping[str, Any],
    may_change: Collection[str] | None = None,
) -> None:
    """Makes a folder that of a run, with the errors of `verify`.

    What may change is written as it is now.
    """
    verify(path, identity, defaults, may_change)
    if may_change is not None or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(dict(identity), indent=2) + "\n").encode())
