"""What a run keeps in its folder: its checkpoint, its weights, and the best of them."""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from learned_optimizer.utils.arrays import load_arrays, save_arrays
from learned_optimizer.utils.exclusive_lock import exclusive_lock
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
    """The files of a run.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def alone(self) -> contextlib.AbstractContextManager[bool]:
        """No other process trains in the folder meanwhile; makes it.

        Entering raises a ValueError where another one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return exclusive_lock(
            self.path / LOCK,
            "A folder must be that of no other running process. Received: "
            f"{os.fspath(self.path)!r}, which one is training in",
        )

    def read_checkpoint(self) -> dict[str, np.ndarray]:
        """The arrays of the checkpoint, `{}` where there is none.

        Raises:
            ValueError: It is damaged.
        """
        path = self.path / CHECKPOINT
        return load_arrays(path) if path.is_file() else {}

    def check_checkpoint(
        self, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]
    ) -> None:
        """Refuses the arrays of a checkpoint that are not shaped as those wanted.

        Raises:
            ValueError: Some are missing or of another shape. Older checkpoints may
                lack the windows of cohorts and the seconds of the cores.
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
        """Refuses to go on with another architecture than that of the weights here.

        `init_weights` may name others by now: an alias moves on, a file is replaced.

        Raises:
            ValueError: The weights here are of another one.
        """
        try:
            found = load_trained(self.path / WEIGHTS).optimizer
        except ValueError:
            return  # Missing or damaged: they are written anew.
        if (found.name, found.to_dict()) != (optimizer.name, optimizer.to_dict()):
            raise ValueError(
                "a run goes on with the architecture that it began with: init_weights "
                f"names another one now. {os.fspath(self.path)!r} has {found.name} "
                f"with {found.to_dict()}. Received: {optimizer.name} with "
                f"{optimizer.to_dict()}"
            )

    def save(
        self,
        arrays: dict[str, np.ndarray],
        weights: TrainedWeights,
        card: Mapping[str, Any],
    ) -> None:
        """Writes the checkpoint, then the weights, each whole or not at all.

        Raises:
            OSError: They cannot be written.
        """
        try:
            save_arrays(self.path / CHECKPOINT, arrays)
            self.save_weights(WEIGHTS, weights, card)
        except OSError as error:
            raise OSError(
                error.errno,
                f"outer step {arrays['outer_step']} could not be saved: "
                f"{error.strerror}; the last checkpoint is left whole, and when it is "
                "started again, the run goes on from it",
                os.fspath(self.path),
            ) from error

    def save_weights(
        self, name: str, weights: TrainedWeights, card: Mapping[str, Any]
    ) -> None:
        """Writes weights as `WEIGHTS` or `BEST`."""
        save_trained(weights, self.path / name, dict(card))

    def card(self, name: str) -> dict[str, Any]:
        """The card of weights that are there, `{}` where none can be loaded."""
        try:
            return load_trained(self.path / name).card
        except ValueError:
            return {}
