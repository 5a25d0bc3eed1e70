"""One process at a time, on one file system."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def file_lock(path: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of this file, as one process at a time can; makes the file.

    The lock of a process that dies is free. On file systems without locks (some
    network ones) nobody waits, so what is done meanwhile must end with a rename.

    Args:
        path: The file.
        wait: For another process that holds it.

    Yields:
        Whether it is held: there are such file systems.

    Raises:
        BlockingIOError: Another process holds it, and this one does not wait.
    """
    with open(path, "a") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            logging.info("Waiting for another process that holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning("%s cannot be locked: %s", path, error)
            held = False
        yield held


@contextlib.contextmanager
def claimed(path: str | os.PathLike, message: str) -> Iterator[None]:
    """Holds the lock of this file, or says why one cannot go on.

    Args:
        path: The file.
        message: Of the error.

    Raises:
        ValueError: Another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError as error:
            raise ValueError(message) from error
        yield
