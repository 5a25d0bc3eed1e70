"""The level of the learned rates, set by whole runs instead of windows.

A window of some hundred steps rewards small steps: they take away the noise of the
minibatches at once, and what they cost in progress comes later. So truncated
meta-training shapes the optimizer well and leaves its rates too low, the short-horizon
bias (Wu et al., *Understanding Short-Horizon Bias in Stochastic Meta-Optimization*,
2018). That bias lies almost wholly along a few scalars that raise or lower all rates
alike. Here those are chosen by a search along each, on whole runs of training tasks:
no gradient, hence no truncation, and too few numbers for noise to matter.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from learned_optimizer.utils.flags import check_order, check_settings, setting
from meta_training.optimizers.base import TrainableOptimizer
from meta_training.outer.validation import summarise
from meta_training.runs import LearnedRuns, TrainingLoop, draw_runs, record_steps
from meta_training.tasks.base import Task, grouped

# What is searched, the first first: the bias of what the RNN adds to a log rate.
KNOBS = ("learning_rate_bias", "step_length_offset")
_RECORDS = 24


@dataclasses.dataclass(frozen=True)
class ScoredShift:
    """What was added to an array, and the score of `Calibration.score` with it."""

    knob: str
    shift: float
    score: float


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
    """How a calibration searches; `setting` documents each field."""

    steps: int = setting(2000, "Inner steps of each run.", at_least=1)
    low_learning_rate: float = setting(
        1e-6, "Lower end of the initial learning rates, log-uniform.", above=0
    )
    high_learning_rate: float = setting(1e-1, "Their upper end.", above=0)
    seed: int = setting(0, "Of the draws and of the initial rates.", at_least=0)
    knobs: tuple[str, ...] = setting(KNOBS, "Arrays that are shifted, in this order.")
    first_step: float = setting(1.0, "First length of a shift.", above=0)
    smallest_step: float = setting(0.25, "Its least length.", above=0)

    def __post_init__(self):
        check_settings(self)
        check_order(
            self,
            ("low_learning_rate", "high_learning_rate"),
            ("smallest_step", "first_step"),
        )


class Calibration:
    """Whole runs on tasks, compiled once and used for all trials."""

    def __init__(
        self,
        tasks: Sequence[Task],
        optimizer: TrainableOptimizer,
        config: CalibrationConfig = CalibrationConfig(),
    ):
        if not tasks:
            raise ValueError("tasks must be one or more. Received: none")
        self.config = config
        low, high = np.log([config.low_learning_rate, config.high_learning_rate])
        self.record_steps = record_steps(config.steps, _RECORDS)
        generator = np.random.default_rng(config.seed)
        self._loops = []
        for members in grouped(tasks, lambda task: task.batch_key):
            count = len(members)
            runs = LearnedRuns(optimizer, members[0].parameter_shapes, count)
            draws = draw_runs(members, [config.seed], config.steps)
            loop = TrainingLoop(members[0], runs, np.arange(count), draws)
            rates = generator.uniform(low, high, count)
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
        report: Callable[[ScoredShift], None] = lambda trial: None,
    ) -> tuple[dict[str, np.ndarray], list[ScoredShift]]:
        """Shifts one array after the other to where the score is lowest.

        They are the `knobs` of the config. From where an array stands it goes in steps
        of `first_step` as long as that lowers the score, up first and down if up was
        no better; then with half of that step, down to `smallest_step`.

        Returns:
            The best meta-parameters, and all trials in their order.
        """
        best, best_score = dict(meta_parameters), None
        trials: list[ScoredShift] = []
        for knob in self.config.knobs:
            center, shift = best[knob], 0.0
            tried = {} if best_score is None else {0.0: best_score}

            def score_at(shift, knob=knob, center=center, tried=tried):
                if shift not in tried:
                    values = {**best, knob: center + np.float32(shift)}
                    tried[shift] = self.score(values)
                    trials.append(ScoredShift(knob, shift, tried[shift]))
                    report(trials[-1])
                return tried[shift]

            step = self.config.first_step
            score_at(0.0)
            while step >= self.config.smallest_step:
                for direction in (step, -step):
                    while score_at(shift + direction) < score_at(shift):
                        shift += direction
                step /= 2
            best[knob] = center + np.float32(shift)
            best_score = score_at(shift)
        return best, trials
