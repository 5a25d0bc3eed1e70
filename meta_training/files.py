"""Files that are whole or not there: written aside, then renamed."""

import io
import os
import pathlib

import numpy as np


def write_aside(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that whoever is killed, or runs out of disk, leaves the old."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays as one npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_aside(path, buffer.getvalue())


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The reverse; nothing in it is ever unpickled."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
