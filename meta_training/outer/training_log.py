"""The log of a run of meta-training.

`train.csv` has a row for each outer step, `validation.csv` one for each validation.
"""

import pathlib

from learned_optimizer.utils.csv_log import CsvLog, read_csv
from learned_optimizer.utils.run_log import RunLog


class TrainingLog(RunLog):
    """Writes the figures of outer steps and validations."""

    def __init__(self, folder: pathlib.Path, outer_step: int, outer_steps: int):
        # The checkpoint comes before this step, which is computed again, but after its
        # validation. Without a checkpoint the first validation is repeated.
        last_steps = {"train": outer_step - 1, "validation": outer_step or -1}
        files = {
            name: CsvLog(folder / f"{name}.csv", ["outer_step"], last_step, digits=6)
            for name, last_step in last_steps.items()
        }
        bar = dict(
            total=outer_steps, initial=outer_step, desc="meta-training", mininterval=5
        )
        super().__init__(folder, files, outer_step, bar)
        for row in read_csv(folder / "validation.csv"):
            if row["outer_step"] == outer_step:
                self.summarize("validation/", row)

    def row(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one outer step."""
        self.write("train", "", {"outer_step": outer_step, **figures})
        shown = {"loss": f"{figures['loss']:.3f}", "cut_off": int(figures["cut_off"])}
        self.advance(1, shown)

    def validation(self, outer_step: int, figures: dict[str, float]) -> None:
        """The figures of one validation, after `outer_step` updates."""
        self.write("validation", "validation/", {"outer_step": outer_step, **figures})
        self.flush()
