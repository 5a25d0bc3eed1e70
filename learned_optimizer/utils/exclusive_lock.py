"""One process at a time, on one file system."""

import contextlib
import errno
import os
from collections.abc import Iterator

import filelock
from absl import logging

# What file systems without locks (some network ones) answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def exclusive_lock(
    path: str | os.PathLike, busy_message: str | None = None
) -> Iterator[bool]:
    """Holds the lock of a file, which is made if there is none.

    The lock of a process that dies is free. On a file system without locks nobody
    waits, so what is done meanwhile must end with a rename.

    Yields:
        Whether the lock is held: there are file systems without any.

    Raises:
        ValueError: Another process holds the lock, and there is a `busy_message`;
            without one it is waited for.
    """
    lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            if busy_message is not None:
                raise ValueError(busy_message) from error
            logging.info("Waiting for another process that holds %s", path)
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning("%s cannot be locked: %s", path, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()
