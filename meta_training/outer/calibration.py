"""The level of the learned rates, set by whole runs instead of windows.

A window of some hundred steps rewards small steps: they take away the noise of the
minibatches at once, and what they cost in progress comes later. So truncated
meta-training shapes the optimizer well and leaves its rates too low, the short-horizon
bias (Wu et al., *Understanding Short-Horizon Bias in Stochastic Meta-Optimization*,
2018). That bias lies almost wholly along a few scalars that raise or lower all rates
alike. Here those are chosen by a search along each, on whole runs of training tasks:
no gradient, hence no truncation, and too few numbers for noise to matter.

>>> calibration = Calibration(task_set("default_networks"), rule)  # doctest: +SKIP
>>> meta_parameters, trials = calibration.search(meta_parameters)    # doctest: +SKIP
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from meta_training.optimizers.base import TrainableOptimizer
from meta_training.outer.validation import summarise
from meta_training.runs import LearnedRuns, TrainingLoop, draw_runs, record_steps
from meta_training.tasks.base import Task, require_positive_integers

# What is searched, the first first: the bias of what the RNN adds to a log rate.
KNOBS = ("learning_rate_bias", "step_length_offset")
_RECORDS = 24


@dataclasses.dataclass(frozen=True)
class Trial:
    """One set of meta-parameters that was tried.

    Attributes:
        knob: The array that was shifted.
        shift: What was added to it.
        score: See `Calibration.score`.
    """

    knob: str
    shift: float
    score: float


class Calibration:
    """Whole runs on tasks, compiled once and used for all trials.

    Args:
        tasks: What to train. Each is drawn once.
        optimizer: Whose meta-parameters they are.
        steps: Inner steps of each run. Defaults to 2,000.
        low_learning_rate: Lower end of the initial learning rates, log-uniform.
        high_learning_rate: Their upper end.
        seed: Of the draws and of the initial rates.

    Raises:
        ValueError: There is no task, or a number is out of its range.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        optimizer: TrainableOptimizer,
        steps: int = 2000,
        low_learning_rate: float = 1e-6,
        high_learning_rate: float = 1e-1,
        seed: int = 0,
    ):
        require_positive_integers("steps", steps)
        if not tasks:
            raise ValueError("calibration needs one task or more. Received: none")
        if not 0 < low_learning_rate <= high_learning_rate:
            raise ValueError(
                "learning rates must be positive, the low one at most the high one. "
                f"Received: {low_learning_rate} and {high_learning_rate}"
            )
        self.record_steps = record_steps(steps, _RECORDS)
        generator = np.random.default_rng(seed)
        groups: dict[Any, list[Task]] = {}
        for task in tasks:
            groups.setdefault(task.batch_key, []).append(task)
        self._loops = []
        for members in groups.values():
            count = len(members)
            runs = LearnedRuns(optimizer, members[0].parameter_shapes, count)
            draws = draw_runs(members, [seed], steps)
            loop = TrainingLoop(members[0], runs, np.arange(count), draws)
            rates = generator.uniform(
                math.log(low_learning_rate), math.log(high_learning_rate), len(members)
            )
            self._loops.append((loop, rates.astype(np.float32)))

    def score(self, meta_parameters: Mapping[str, np.ndarray]) -> float:
        """The mean over tasks of `validation.summarise`'s score; lower is better."""
        scores = []
        for loop, rates in self._loops:
            arguments = {
                "meta_parameters": dict(meta_parameters),
                "log_learning_rate": rates,
            }
            losses = loop(self.record_steps, arguments).losses
            scores += [
                summarise(self.record_steps, losses[:, run : run + 1])["score"]
                for run in range(len(rates))
            ]
        return float(np.mean(scores))

    def search(
        self,
        meta_parameters: Mapping[str, np.ndarray],
        knobs: Sequence[str] = KNOBS,
        first_step: float = 1.0,
        smallest_step: float = 0.25,
        report: Callable[[Trial], None] = lambda trial: None,
    ) -> tuple[dict[str, np.ndarray], list[Trial]]:
        """Shifts one array after the other to where the score is lowest.

        From where an array stands it goes in steps of `first_step` as long as that
        lowers the score, up first and down if up was no better; then with half of
        that step, down to `smallest_step`.

        Args:
            meta_parameters: Where to start.
            knobs: Names of the arrays, searched in this order.
            first_step: What is added to or taken off every element at first.
            smallest_step: The least of these steps.
            report: Called with each trial.

        Returns:
            The best meta-parameters, and all trials in their order.
        """
        best = dict(meta_parameters)
        trials: list[Trial] = []
        best_score = None
        for knob in knobs:
            if knob not in best:
                raise ValueError(
                    f"a knob must be one of {sorted(best)}. Received: {knob!r}"
                )
            center, shift = best[knob], 0.0
            tried: dict[float, float] = {}
            if best_score is not None:
                tried[0.0] = best_score

            def score_at(shift, knob=knob, center=center, tried=tried):
                if shift not in tried:
                    values = {**best, knob: center + np.float32(shift)}
                    tried[shift] = self.score(values)
                    trials.append(Trial(knob, shift, tried[shift]))
                    report(trials[-1])
                return tried[shift]

            step = first_step
            score_at(0.0)
            while step >= smallest_step:
                for direction in (step, -step):
                    while score_at(shift + direction) < score_at(shift):
                        shift += direction
                step /= 2
            best[knob] = center + np.float32(shift)
            best_score = score_at(shift)
        return best, trials
