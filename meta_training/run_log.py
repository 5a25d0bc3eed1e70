"""What a run says while it trains: a CSV, TensorBoard and a progress bar.

`train.csv` has a row an outer step, `validation.csv` one a validation. A run that goes
on drops the rows after its checkpoint first: the steps are done again.
"""

import csv
import pathlib

import tensorflow as tf
import tqdm

from meta_training.files import write_aside


class RunLog:
    """Writes the figures of a run.

    Args:
        folder: Of the run.
        outer_step: Updates done so far.
        outer_steps: Updates in all.
    """

    def __init__(self, folder: pathlib.Path, outer_step: int, outer_steps: int):
        self._files = {
            name: _CsvFile(folder / f"{name}.csv", outer_step, name == "validation")
            for name in ("train", "validation")
        }
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
        self._bar = tqdm.tqdm(
            total=outer_steps,
            initial=outer_step,
            desc="meta-training",
            unit="step",
            mininterval=5,
            smoothing=0.1,
        )

    def row(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one outer step."""
        self._files["train"].write(outer_step, figures)
        self._summaries("", outer_step, figures)
        self._bar.set_postfix(
            loss=f"{figures['loss']:.3f}",
            cut_off=int(figures["cut_off"]),
            refresh=False,
        )
        self._bar.update()

    def validation(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one validation, after `outer_step` updates."""
        self._files["validation"].write(outer_step, figures)
        self._summaries("validation/", outer_step, figures)

    def flush(self) -> None:
        """Puts everything on disk."""
        for file in self._files.values():
            file.flush()
        self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        self.flush()
        for file in self._files.values():
            file.close()
        self._writer.close()
        self._bar.close()

    def _summaries(self, prefix, outer_step, figures):
        with self._writer.as_default(step=outer_step):
            for name, value in figures.items():
                tf.summary.scalar(prefix + name, value)


class _CsvFile:
    """Rows of an outer step and its figures; columns are those of the first row."""

    def __init__(self, path: pathlib.Path, outer_step: int, with_last: bool):
        self._names = None
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
            kept = rows[:1] + [
                row
                for row in rows[1:]
                if len(row) == len(rows[0]) and int(row[0]) < outer_step + with_last
            ]
            if rows:
                self._names = rows[0][1:]
            text = "".join(",".join(row) + "\n" for row in kept)
            write_aside(path, text.encode())
        self._file = open(path, "a", newline="", encoding="utf-8")

    def write(self, outer_step, figures):
        writer = csv.writer(self._file, lineterminator="\n")
        if self._names is None:
            self._names = list(figures)
            writer.writerow(["outer_step", *self._names])
        writer.writerow(
            [
                outer_step,
                *(f"{figures.get(name, float('nan')):.6g}" for name in self._names),
            ]
        )
        self.flush()

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()
