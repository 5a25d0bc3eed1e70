"""The log of a run: CSV files, TensorBoard's event files and a progress bar.

The name of the step's column, the first, is that of the CSV files. A run that resumes
drops the rows after its checkpoint, there and in TensorBoard: it computes them again.
"""

import contextlib
import errno
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import tqdm

from learned_optimizer.utils.csv_log import CsvLog


class RunLog:
    """Writes the figures of a run.

    Methods that write raise an OSError that says what it means for the run. TensorBoard
    drops earlier events from `first_step` on; `bar` has arguments of `tqdm.tqdm`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        files: Mapping[str, CsvLog],
        first_step: int,
        bar: Mapping[str, Any],
    ):
        self._folder = folder
        self._files = files
        self._writer = tf.summary.create_file_writer(os.fspath(folder / "tensorboard"))
        _purge_events_after(self._writer, first_step)
        self._bar = tqdm.tqdm(unit="step", smoothing=0.1, **bar)

    def write(self, name: str, prefix: str, row: Mapping[str, float]) -> None:
        """Adds a row to a file, and to TensorBoard with this prefix."""
        with self._explain_write_errors():
            self._files[name].write(row)
            self.summarize(prefix, row)

    def summarize(self, prefix: str, row: Mapping[str, float]) -> None:
        """Writes a row for TensorBoard alone."""
        (_, step), *figures = row.items()
        with self._writer.as_default(step=int(step)):
            for name, value in figures:
                tf.summary.scalar(prefix + name, value)

    def advance(self, steps: int, figures: Mapping[str, str | int]) -> None:
        """Moves the progress bar on; the figures are shown beside it."""
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(steps)

    def flush(self) -> None:
        """Puts everything on disk."""
        with self._explain_write_errors():
            for file in self._files.values():
                file.flush()
            self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        self._bar.close()
        with self._explain_write_errors():
            for file in self._files.values():
                file.close()
            self._writer.close()

    @contextlib.contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            # TensorFlow's have more lines.
            reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                f"the figures of the run could not be written: {reason}; the last "
                "checkpoint is complete, and when it is started again, the run resumes "
                "from it",
                os.fspath(self._folder),
            ) from error


class SilentLog:
    """Ignores every call: the log of a process that is not the chief."""

    def __getattr__(self, name):
        return lambda *_: None


def _purge_events_after(writer: tf.summary.SummaryWriter, step: int) -> None:
    """Has TensorBoard drop the events of `step` and later in a folder's other files.

    Those steps are done again: their curves would run twice.
    """
    # `tf.summary` has no function that writes what older writers of TensorFlow did at
    # each start, and what readers of their files go by.
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    event = tf.compat.v1.Event(wall_time=time.time(), step=step, session_log=start)
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
