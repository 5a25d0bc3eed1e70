"""Named arrays as files, without pickle."""

import io
import pathlib

import numpy as np

from learned_optimizer.utils.arrays import arrays_from_npz
from learned_optimizer.utils.atomic_write import atomic_write


def arrays_to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as the bytes of one npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def arrays_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The reverse; nothing in it is ever unpickled."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays as one npz, whole or not at all."""
    atomic_write(path, arrays_to_bytes(arrays))


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The reverse; nothing in it is ever unpickled.

    Raises:
        ValueError: The file is damaged, or something else.
    """
    return arrays_from_npz(path.read_bytes(), str(path))
