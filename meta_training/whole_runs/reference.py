"""How fast a run is: measured against a table of a well-tuned optimizer's losses.

The table has, for every task, every horizon, and with the horizon known or not, the
losses of NAdamW at the best rate of a grid for that task and horizon: the geometric
mean over seeds, of the task as it is, not rescaled. Where the horizon is known the rate
falls along a cosine, else it is constant. `python -m meta_training.reference` computes
it; the one that ships is `REFERENCE`.

>>> table = ReferenceTable.load()                                  # doctest: +SKIP
>>> table.score("perceptron_10_16_3_relu", 1000, True, steps, losses)  # doctest: +SKIP
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable

import numpy as np

from learned_optimizer.utils.arrays import load_arrays, save_arrays

REFERENCE = pathlib.Path(__file__).with_name("reference.npz")
HORIZONS = (200, 450, 1000, 2250, 5000)
# Losses below this count alike: there an optimizer only fits the training set harder.
LOSS_FLOOR = 1e-4
# Faster or slower than this counts alike.
LARGEST_RATIO = 4.0
# Where the start counts as: before the first step there is no logarithm.
_START = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceTable:
    """Losses of the reference, see above.

    Attributes:
        tasks: Names of the tasks.
        horizons: `[horizons]`, ascending numbers of steps.
        steps: `[horizons, records]`, when losses were recorded, from 0.
        losses: `[tasks, 2, horizons, records]`, at a constant rate and with a cosine.
        evaluation_losses: The same under the running averages of batch normalisation;
            `losses` themselves where a task has none.
        rates: `[tasks, 2, horizons]`, the learning rates that were best.
    """

    tasks: tuple[str, ...]
    horizons: np.ndarray
    steps: np.ndarray
    losses: np.ndarray
    evaluation_losses: np.ndarray
    rates: np.ndarray

    @classmethod
    def load(cls, path: pathlib.Path = REFERENCE) -> "ReferenceTable":
        """The table in a file.

        Raises:
            ValueError: There is none, or it is damaged.
        """
        if not path.is_file():
            raise ValueError(
                f"the reference table must be a file. Received: {str(path)!r}; "
                "`python -m meta_training.reference` computes it"
            )
        arrays = load_arrays(path)
        missing = {field.name for field in dataclasses.fields(cls)} - set(arrays)
        if missing:
            raise ValueError(
                f"{path.name} must hold a reference table. Missing: {sorted(missing)}"
            )
        return cls(**{**arrays, "tasks": tuple(arrays["tasks"].tolist())})

    def check(self, tasks: Iterable[str], horizons: Iterable[int]) -> None:
        """Raises ValueError where a task or a horizon has no row."""
        for kind, wanted, known in (
            ("task", tasks, set(self.tasks)),
            ("horizon", horizons, set(self.horizons.tolist())),
        ):
            missing = sorted(set(wanted) - known)
            if missing:
                raise ValueError(
                    f"every {kind} must have a row in the reference table, which "
                    "`python -m meta_training.reference` computes. "
                    f"Missing: {missing}"
                )

    def steps_to_reach(
        self,
        task: str,
        horizon: int,
        is_known: bool,
        losses: np.ndarray,
        of: str = "losses",
    ) -> np.ndarray:
        """The steps that the reference needs to reach each of some losses.

        Within the horizon they are read off its curve, between records on a line in
        the logs of both. A loss below its end is one for longer horizons: they are read
        off their ends. What none of them reaches takes infinitely many.

        Args:
            task: Its name.
            horizon: Of the run.
            is_known: Whether the run knew it.
            losses: Of any shape; may be not finite.
            of: The field whose curves count, `losses` or `evaluation_losses`.
        """
        log_steps, log_losses = self._curve(task, horizon, is_known, of)
        wanted = np.log(np.maximum(losses, LOSS_FLOOR))
        wanted = np.where(np.isfinite(wanted), wanted, np.inf)
        # The first record at or below it; the curve never rises.
        after = np.searchsorted(-log_losses, -wanted, side="left")
        inside = np.clip(after, 1, len(log_losses) - 1)
        upper, lower = log_losses[inside - 1], log_losses[inside]
        drop = np.where(upper > lower, upper - lower, 1.0)
        fraction = np.clip((upper - np.minimum(wanted, upper)) / drop, 0.0, 1.0)
        between = log_steps[inside - 1] * (1 - fraction) + log_steps[inside] * fraction
        found = np.exp(np.where(after == 0, log_steps[0], between))
        return np.where(after == len(log_losses), np.inf, found)

    def save(self, path: pathlib.Path) -> None:
        """Writes it, whole or not at all."""
        save_arrays(path, {**vars(self), "tasks": np.array(self.tasks)})

    def _curve(self, task, horizon, is_known, of):
        """Logs of steps and of the least loss up to there, beyond the horizon too."""
        row = getattr(self, of)[self.tasks.index(task), int(is_known)]
        column = self.horizons.tolist().index(horizon)
        steps = np.concatenate([self.steps[column], self.horizons[column + 1 :]])
        losses = np.concatenate([row[column], row[column + 1 :, -1]])
        losses = np.where(np.isfinite(losses), losses, np.inf)
        least = np.minimum.accumulate(np.maximum(losses, LOSS_FLOOR))
        return np.log(np.maximum(steps, _START)), np.log(least)

    def score(
        self, task: str, horizon: int, is_known: bool, steps, losses, evaluation_losses
    ) -> np.ndarray:
        """How much faster than the reference runs are, in logs; higher is better.

        At each record: log(steps that the reference needs to reach this loss / steps
        taken), clipped to +-log 4; half of the score is its value at the end, half its
        mean over the records before. With batch normalisation the losses under running
        averages count for half of it; elsewhere both are the same.

        Args:
            task: Its name.
            horizon: Of the runs.
            is_known: Whether they knew it.
            steps: `[records]`, ascending; the start, step 0, says nothing.
            losses: `[records, ...]` of the runs.
            evaluation_losses: The same under running averages.

        Returns:
            `[...]`, between -log 4 and log 4.
        """
        steps = np.asarray(steps)
        taken = steps > 0
        bound = math.log(LARGEST_RATIO)
        scores = []
        both = {"losses": losses, "evaluation_losses": evaluation_losses}
        for of, found in both.items():
            reached = np.asarray(found)[taken]
            needed = self.steps_to_reach(task, horizon, is_known, reached, of)
            log_ratio = (np.log(needed).T - np.log(steps[taken])).T
            log_ratio = np.clip(log_ratio, -bound, bound)
            along = log_ratio[:-1] if len(log_ratio) > 1 else log_ratio
            scores.append(0.5 * log_ratio[-1] + 0.5 * along.mean(axis=0))
        return np.mean(scores, axis=0)
