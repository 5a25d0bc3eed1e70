"""The progress of a run of meta-training, and its cost."""

import dataclasses
import os
import time

import numpy as np


@dataclasses.dataclass
class Progress:
    """The counters of a run, for its checkpoint and the cards of its weights.

    Attributes:
        outer_step: Updates of the meta-parameters done.
        best_score: The lowest validation score so far.
        inner_steps: Inner steps of all problems.
        seconds: Wall-clock seconds in outer steps.
        earlier_cpu_seconds: CPU seconds before this process resumed the run; nan if
            they were not counted from the start.
        cpu_began: CPU seconds of this process when it started or resumed the run.
    """

    outer_step: int = 0
    best_score: float = np.inf
    inner_steps: int = 0
    seconds: float = 0.0
    earlier_cpu_seconds: float = 0.0
    cpu_began: float = dataclasses.field(init=False)

    def __post_init__(self):
        self.cpu_began = time.process_time()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the run, including validation.

        Unlike the wall clock, they do not count other work on the machine.
        """
        return self.earlier_cpu_seconds + time.process_time() - self.cpu_began

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The scalars for a checkpoint."""
        names = ("outer_step", "best_score", "seconds", "cpu_seconds", "inner_steps")
        return {name: np.array(getattr(self, name)) for name in names}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The reverse of `to_arrays`; `cpu_seconds` may be missing."""
        self.outer_step = int(arrays["outer_step"])
        self.best_score = float(arrays["best_score"])
        self.seconds = float(arrays["seconds"])
        self.earlier_cpu_seconds = float(arrays.get("cpu_seconds", np.nan))
        self.inner_steps = int(arrays["inner_steps"])

    def on_card(self) -> dict[str, int | float | None]:
        """The entries for the card of weights."""
        cpu_hours = self.cpu_seconds / 3600
        return {
            "outer_step": self.outer_step,
            "inner_steps": self.inner_steps,
            "wall_clock_hours": round(self.seconds / 3600, 3),
            "cpu_hours": None if np.isnan(cpu_hours) else round(cpu_hours, 3),
            "cores": os.cpu_count(),
        }
