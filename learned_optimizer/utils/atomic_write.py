"""Atomic writes: a file or folder is written under a temporary name, then renamed."""

import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping


def temporary_sibling(path: pathlib.Path) -> pathlib.Path:
    """A new hidden name in the folder of `path`.

    Part of it is random: process ids come again in containers, and a new process must
    not meet what a killed one left.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def atomic_write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file; a kill or a full disk leaves the file that was there."""
    atomic_write_all({path: content})


def atomic_write_all(files: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files that belong together; all are on disk before any is renamed.

    A full disk leaves all the old ones, and so does a kill, but for one between two
    renames.
    """
    asides = {path: temporary_sibling(path) for path in files}
    try:
        for path, content in files.items():
            with open(asides[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, aside in asides.items():
            os.replace(aside, path)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)


def replace_folder(aside: pathlib.Path, path: pathlib.Path) -> None:
    """Renames `aside` to `path`; what was there goes, or stays if that fails."""
    if not path.exists() or not any(path.iterdir()):
        os.replace(aside, path)
        return
    # No file system exchanges folders portably: for a moment there is none. Who is
    # killed just then leaves both, whole, beside it.
    old = temporary_sibling(path)
    os.replace(path, old)
    try:
        os.replace(aside, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
