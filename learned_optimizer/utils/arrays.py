"""Named arrays from the bytes of an npz, without pickle."""

import io
import zipfile
import zlib

import numpy as np


def arrays_from_npz(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of an npz by name; nothing in it is ever unpickled.

    Args:
        content: Of the file.
        name: What an error calls it.

    Raises:
        ValueError: It is damaged, or something else.
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
