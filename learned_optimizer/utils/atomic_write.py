"""Files and folders that are whole or not there: written aside, then renamed."""

import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping


def hidden_beside(path: pathlib.Path) -> pathlib.Path:
    """A new hidden name beside `path`, for what is not whole yet or not needed more.

    With a random part: process ids come again in containers, and what a killed process
    left must be in nobody's way.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def write_aside(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that whoever is killed, or runs out of disk, leaves the old."""
    write_together({path: content})


def write_together(files: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files that belong together; all are on disk before any is renamed.

    So a full disk leaves all the old ones, and a kill, but for the moment of the
    renames, which no file system makes one.
    """
    asides = {path: hidden_beside(path) for path in files}
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
    old = hidden_beside(path)
    os.replace(path, old)
    try:
        os.replace(aside, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
