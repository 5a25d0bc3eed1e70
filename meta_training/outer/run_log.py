"""What a run says while it trains: a CSV, TensorBoard and a progress bar.

`train.csv` has a row an outer step, `validation.csv` one a validation. A run that goes
on drops the rows after its checkpoint first: the steps are done again. TensorBoard is
told to do so, too.
"""

import contextlib
import errno
import pathlib

import tensorflow as tf
import tqdm

from learned_optimizer.utils.csv_log import CsvLog, read_csv
from learned_optimizer.utils.tensorboard import purge_events_after


class RunLog:
    """Writes the figures of a run.

    Args:
        folder: Of the run.
        outer_step: Updates done so far.
        outer_steps: Updates in all.
    """

    def __init__(self, folder: pathlib.Path, outer_step: int, outer_steps: int):
        self._folder = str(folder)
        # The step that the checkpoint comes before is done again. It was validated, but
        # where there is no checkpoint yet: there the first validation is done again.
        last_steps = {"train": outer_step - 1, "validation": outer_step or -1}
        self._files = {
            name: CsvLog(folder / f"{name}.csv", ["outer_step"], last_step, digits=6)
            for name, last_step in last_steps.items()
        }
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
        purge_events_after(self._writer, outer_step)
        for row in read_csv(folder / "validation.csv"):
            if row.pop("outer_step") == outer_step:
                self._summaries("validation/", outer_step, row)
        self._bar = tqdm.tqdm(
            total=outer_steps,
            initial=outer_step,
            desc="meta-training",
            unit="step",
            mininterval=5,
            smoothing=0.1,
        )

    def row(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one outer step.

        Raises:
            OSError: They cannot be written.
        """
        with self._told():
            self._write("train", outer_step, figures)
            self._summaries("", outer_step, figures)
        self._bar.set_postfix(
            loss=f"{figures['loss']:.3f}",
            cut_off=int(figures["cut_off"]),
            refresh=False,
        )
        self._bar.update()

    def validation(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one validation, after `outer_step` updates."""
        with self._told():
            self._write("validation", outer_step, figures)
            self._summaries("validation/", outer_step, figures)

    def flush(self) -> None:
        """Puts everything on disk."""
        with self._told():
            for file in self._files.values():
                file.flush()
            self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        self._bar.close()
        with self._told():
            for file in self._files.values():
                file.close()
            self._writer.close()

    @contextlib.contextmanager
    def _told(self):
        """An error of the disk says what it means for the run."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                "the figures of the run could not be written: "
                f"{getattr(error, 'strerror', None) or error}; the last checkpoint is "
                "left whole, and when it is started again, the run goes on from it",
                self._folder,
            ) from error

    def _write(self, name, outer_step, figures):
        self._files[name].write({"outer_step": outer_step, **figures})
        self._files[name].flush()

    def _summaries(self, prefix, outer_step, figures):
        with self._writer.as_default(step=outer_step):
            for name, value in figures.items():
                tf.summary.scalar(prefix + name, value)


class SilentLog:
    """Says nothing: the log of a process that is not the chief."""

    def row(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one outer step."""

    def validation(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one validation."""

    def flush(self) -> None:
        """Puts everything on disk."""

    def close(self) -> None:
        """Ends the log."""
