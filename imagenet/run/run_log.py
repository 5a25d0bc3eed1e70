"""What a run says while it trains: two CSVs, TensorBoard and a progress bar.

`train.csv` has a row a step, on disk as soon as its loop is done; `eval.csv` one an
evaluation. A run that goes on drops the rows after its checkpoint first, and has
TensorBoard drop them: those steps are done again.
"""

import pathlib

import tensorflow as tf
import tqdm

from imagenet.run.columns import EVAL_COLUMNS, TRAIN_COLUMNS
from learned_optimizer.utils.csv_log import CsvLog
from learned_optimizer.utils.tensorboard import purge_events_after


class RunLog:
    """Writes the figures of a run.

    Args:
        folder: Of the run.
        step: Steps done so far.
        train_steps: Steps in all.
        is_learned: Whether there is a mean learned rate to write.
    """

    def __init__(self, folder: pathlib.Path, step: int, train_steps: int, is_learned):
        columns = TRAIN_COLUMNS + (("mean_learned_rate",) if is_learned else ())
        self._train = CsvLog(folder / "train.csv", columns, step)
        self._evaluations = CsvLog(folder / "eval.csv", EVAL_COLUMNS, step)
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
        purge_events_after(self._writer, step + 1)
        self._bar = tqdm.tqdm(
            total=train_steps,
            initial=step,
            desc="training",
            unit="step",
            mininterval=2,
            smoothing=0.1,
        )

    def loop(self, rows: list[dict[str, float]]) -> None:
        """The figures of some steps, a dict of the columns each."""
        for row in rows:
            self._train.write(row)
            self._summaries("train/", row)
        self._train.flush()
        last = rows[-1]
        self._bar.set_postfix(
            loss=f"{last['loss']:.3f}",
            images_per_second=f"{last['images_per_second']:.1f}",
            refresh=False,
        )
        self._bar.update(len(rows))

    def evaluation(self, row: dict[str, float]) -> None:
        """The figures of an evaluation, a dict of the columns."""
        self._evaluations.write(row)
        self._evaluations.flush()
        self._summaries("validation/", row)

    def flush(self) -> None:
        """Puts everything on disk."""
        self._train.flush()
        self._evaluations.flush()
        self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        self.flush()
        self._train.close()
        self._evaluations.close()
        self._writer.close()
        self._bar.close()

    def _summaries(self, prefix, row):
        with self._writer.as_default(step=int(row["step"])):
            for name, value in row.items():
                if name != "step":
                    tf.summary.scalar(prefix + name, value)


class SilentLog:
    """Says nothing: the log of a process that is not the chief."""

    def loop(self, rows: list[dict[str, float]]) -> None:
        """The figures of some steps."""

    def evaluation(self, row: dict[str, float]) -> None:
        """The figures of an evaluation."""

    def flush(self) -> None:
        """Puts everything on disk."""

    def close(self) -> None:
        """Ends the log."""
