"""The log of a run: `train.csv`, a row a step, and `eval.csv`, a row an evaluation."""

import pathlib

from imagenet.run.config import EVAL_COLUMNS, TRAIN_COLUMNS
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
        formats = {"loss": ".3f", "images_per_second": ".1f"}
        shown = {name: format(rows[-1][name], f) for name, f in formats.items()}
        self.advance(len(rows), shown)

    def evaluation(self, row: dict[str, float]) -> None:
        """The figures of an evaluation, a dict of the columns."""
        self.write("eval", "validation/", row)
        self.flush()
