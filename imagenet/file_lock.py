"""One process at a time, on one file system."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def file_lock(path: str | os.PathLike) -> Iterator[None]:
    """Waits until no other process holds the lock of this file; makes the file.

    The lock of a process that dies is free. On file systems without locks (some
    network ones) nobody waits, so what is done meanwhile must end with a rename.
    """
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("Waiting for another process that holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning("%s cannot be locked: %s", path, error)
        yield
