"""The files of a run: its checkpoint, its weights, the best of them, and its log.

`train.csv` has a row for each outer step, `validation.csv` one for each validation.
"""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from learned_optimizer.utils.arrays import load_arrays, save_arrays
from learned_optimizer.utils.csv_log import CsvLog, read_csv
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from learned_optimizer.utils.run_log import RunLog
from meta_training.optimizers import (
    TrainableOptimizer,
    TrainedWeights,
    load_trained,
    save_trained,
)

CHECKPOINT = "checkpoint.npz"
WEIGHTS = "weights.npz"
BEST = "best.npz"
LOCK = ".lock"


class RunFolder:
    """The files of a run."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def exclusive_lock(self) -> contextlib.AbstractContextManager[bool]:
        """A context in which no other process trains in the folder; creates it.

        Entering raises a ValueError if another process trains there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return exclusive_lock(
            self.path / LOCK,
            "train_dir must be in use by no other process. Received: "
            f"{os.fspath(self.path)!r}, in which one is training",
        )

    def read_checkpoint(self) -> dict[str, np.ndarray]:
        """The arrays of the checkpoint, `{}` where there is none."""
        path = self.path / CHECKPOINT
        return load_arrays(path) if path.is_file() else {}

    def check_checkpoint(
        self, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]
    ) -> None:
        """Checks that the arrays of a checkpoint have the wanted shapes.

        Raises:
            ValueError: Some are missing or of another shape. Older checkpoints may
                lack the windows of cohorts and the CPU seconds.
        """
        differing = []
        for name, value in wanted.items():
            if name not in arrays:
                if not name.startswith(("cohort", "cpu_seconds")):
                    differing.append(f"{name} is missing")
            elif arrays[name].shape != np.shape(value):
                shapes = f"{arrays[name].shape} there, {np.shape(value)} wanted"
                differing.append(f"{name}: {shapes}")
        if differing:
            path = str(self.path / CHECKPOINT)
            raise ValueError(
                f"{path!r} must be a checkpoint of these tasks and settings. "
                f"Received: one of others: {'; '.join(differing[:5])}"
            )

    def check_optimizer(self, optimizer: TrainableOptimizer) -> None:
        """Checks that the run resumes with its architecture.

        `init_weights` may name other weights by now: an alias changes, a file is
        replaced.

        Raises:
            ValueError: The weights in the folder are of another architecture.
        """
        try:
            found = load_trained(self.path / WEIGHTS).optimizer
        except ValueError:
            return  # Missing or damaged: they are written anew.
        if (found.name, found.to_dict()) != (optimizer.name, optimizer.to_dict()):
            raise ValueError(
                "init_weights must have the architecture that the run in "
                f"{os.fspath(self.path)!r} began with, {found.name} with "
                f"{found.to_dict()}. Received: {optimizer.name} with "
                f"{optimizer.to_dict()}"
            )

    def save(
        self,
        arrays: dict[str, np.ndarray],
        weights: TrainedWeights,
        card: Mapping[str, Any],
    ) -> None:
        """Writes the checkpoint, then the weights, each atomically.

        Raises:
            OSError: They cannot be written.
        """
        try:
            save_arrays(self.path / CHECKPOINT, arrays)
            save_trained(weights, self.path / WEIGHTS, dict(card))
        except OSError as error:
            raise OSError(
                error.errno,
                f"outer step {arrays['outer_step']} could not be saved: "
                f"{error.strerror}; the last checkpoint is complete, and when it is "
                "started again, the run resumes from it",
                os.fspath(self.path),
            ) from error

    def card(self, name: str) -> dict[str, Any]:
        """The card of weights in the folder, `{}` if none can be loaded."""
        try:
            return load_trained(self.path / name).card
        except ValueError:
            return {}


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
