"""The log of a run of training.

`train.csv` has a row for each step, on disk as soon as its loop is done; `eval.csv` one
for each evaluation.
"""

import pathlib

from imagenet.run.columns import EVAL_COLUMNS, TRAIN_COLUMNS
from learned_optimizer.utils import run_log
from learned_optimizer.utils.csv_log import CsvLog


class RunLog(run_log.RunLog):
    """Writes the figures of steps and evaluations."""

    def __init__(self, folder: pathlib.Path, step: int, train_steps: int, is_learned):
        columns = TRAIN_COLUMNS + (("mean_learned_rate",) if is_learned else ())
        files = {
            "train": CsvLog(folder / "train.csv", columns, step),
            "eval": CsvLog(folder / "eval.csv", EVAL_COLUMNS, step),
        }
        bar = dict(total=train_steps, initial=step, desc="training", mininterval=2)
        super().__init__(folder, files, step + 1, bar)

    def loop(self, rows: list[dict[str, float]]) -> None:
        """The figures of some steps, a dict of the columns each."""
        for row in rows:
            self.write("train", "train/", row)
        self.flush()
        last = rows[-1]
        shown = {
            "loss": f"{last['loss']:.3f}",
            "images_per_second": f"{last['images_per_second']:.1f}",
        }
        self.advance(len(rows), shown)

    def evaluation(self, row: dict[str, float]) -> None:
        """The figures of an evaluation, a dict of the columns."""
        self.write("eval", "validation/", row)
        self.flush()
