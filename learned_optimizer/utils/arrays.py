"""Named arrays as npz files, without pickle."""

import io
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from learned_optimizer.utils.atomic_write import atomic_write


def save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as one npz, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    atomic_write(path, buffer.getvalue())


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays that `save_arrays` wrote, with the errors of `arrays_from_npz`."""
    return arrays_from_npz(path.read_bytes(), str(path))


def arrays_from_npz(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of an npz by name; nothing in it is ever unpickled.

    Raises:
        ValueError: The file is damaged, or something else.
    """
    try:
        # `NpzFile` and not `np.load`, which would take a bare array or a pickle too.
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as archive:
            return {member: archive[member] for member in archive.files}
    except (
        *(ValueError, TypeError, OSError, EOFError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            f"{name!r} must be a whole npz archive of plain arrays. Received: {error}"
        ) from error


def with_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays under longer names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def under_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those with a name that starts so, without it: the reverse of `with_prefix`."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
