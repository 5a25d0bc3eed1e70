"""Whole runs of a minibatch of tasks, drawn anew for every generation.

Tasks of one `program_key` form a family, and a family has one program, compiled once:
the horizon is data, so are draws, initial rates, scales and meta-parameters. All
members of a generation share every draw.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from learned_optimizer.utils.flags import check_settings, setting
from meta_training.optimizers.base import TrainableOptimizer
from meta_training.runs.draws import Draws, draw_runs
from meta_training.runs.learned import LearnedRuns
from meta_training.runs.loop import TrainingLoop
from meta_training.tasks.base import Task, grouped
from meta_training.whole_runs.reference import HORIZONS, ReferenceTable

# Losses are recorded so often, evenly in the log of the step: evaluating a loss on all
# rows costs as much as dozens of steps.
_RECORDS = 10
_FIRST_RECORD = 0.02


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What whole runs are drawn from; `setting` documents each field."""

    families: int = setting(4, "Families of tasks in a generation.", at_least=1)
    tasks_per_family: int = setting(2, "Tasks drawn of each of them.", at_least=1)
    horizons: tuple[int, ...] = setting(
        HORIZONS, "Numbers of steps, one of which each family draws.", at_least=1
    )
    known: float = setting(
        0.5, "Share of runs that know their horizon.", at_least=0, at_most=1
    )
    low_learning_rate: float = setting(
        1e-6, "Lower end of the initial rates, relative to the scale.", above=0
    )
    high_learning_rate: float = setting(1e-1, "Their upper end.", above=0)
    scale_range: float = setting(
        10.0, "Most that parameters are multiplied or divided by.", at_least=1
    )
    scale_jitter: float = setting(
        0.3, "Standard deviation of the log scale from tensor to tensor.", at_least=0
    )

    def __post_init__(self):
        check_settings(self)
        if not self.horizons or self.low_learning_rate > self.high_learning_rate:
            raise ValueError(
                "there must be a horizon, and the low learning rate be at most the "
                f"high one. Received: horizons={self.horizons}, low_learning_rate="
                f"{self.low_learning_rate}, high_learning_rate="
                f"{self.high_learning_rate}"
            )


class FamilyDraw(NamedTuple):
    """What the runs of one family share in a generation.

    `arguments` are those of `LearnedRuns`, without the meta-parameters.
    """

    horizon: int
    draws: Draws
    arguments: dict[str, np.ndarray]


class WholeRuns:
    """Compiled whole runs of a set of tasks, with their scores.

    `threads` families run at the same time.

    Raises:
        ValueError: There is no task, or one has no row in the table.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        optimizer: TrainableOptimizer,
        table: ReferenceTable,
        options: RunConfig,
        threads: int = 1,
    ):
        if not tasks:
            raise ValueError("whole runs need one task or more. Received: none")
        table.check((task.name for task in tasks), options.horizons)
        self.table = table
        self.options = options
        self._optimizer = optimizer
        self._families = grouped(tasks, lambda task: task.program_key)
        self._loops: dict[int, TrainingLoop] = {}
        self._threads = threads

    def draw(self, generator: np.random.Generator) -> dict[int, FamilyDraw]:
        """The draws of a generation, by the number of the family."""
        options = self.options
        sizes = np.array([len(family) for family in self._families], float)
        count = min(options.families, len(self._families))
        chosen = generator.choice(
            len(self._families), count, replace=False, p=sizes / sizes.sum()
        )
        drawn = {}
        counts = [min(options.tasks_per_family, len(self._families[i])) for i in chosen]
        known = options.known if self._optimizer.takes_horizon else 0.0
        is_known = np.arange(sum(counts)) < round(known * sum(counts))
        is_known = np.split(generator.permutation(is_known), np.cumsum(counts)[:-1])
        for number, size, known in zip(chosen, counts, is_known, strict=True):
            family = self._families[number]
            members = generator.choice(len(family), size, replace=False)
            drawn[int(number)] = self._draw_family(
                [family[i] for i in members], known, generator
            )
        return drawn

    def _draw_family(self, tasks, is_known, generator) -> FamilyDraw:
        options = self.options
        horizon = int(generator.choice(options.horizons))
        draws = draw_runs(tasks, [int(generator.integers(2**31))], horizon)
        # All draws of a family have one shape, that of the longest horizon.
        missing = max(options.horizons) - horizon
        rows = np.pad(draws.row_indices, [(0, missing), (0, 0), (0, 0)])
        draws = dataclasses.replace(draws, row_indices=rows)
        log_range = math.log(options.scale_range)
        tensors = len(tasks[0].parameter_shapes)
        log_scale = generator.uniform(-log_range, log_range, (len(tasks), 1))
        log_scale = log_scale + options.scale_jitter * generator.standard_normal(
            (len(tasks), tensors)
        )
        low, high = np.log([options.low_learning_rate, options.high_learning_rate])
        rates = generator.uniform(low, high, len(tasks)) + log_scale.mean(axis=1)
        arguments = {
            "log_learning_rate": rates.astype(np.float32),
            "log_scale": log_scale.astype(np.float32),
            "total_steps": np.where(is_known, np.float32(horizon), np.float32(0)),
        }
        return FamilyDraw(horizon, draws, arguments)

    def scores(
        self,
        drawn: Mapping[int, FamilyDraw],
        members: Sequence[Mapping[str, np.ndarray]],
        check: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """`[members, runs]` scores of `ReferenceTable.score`, higher is better.

        `members` are the meta-parameters of each. `check` is called before every run,
        and may raise to end the work.
        """
        # The longest first, so that no thread is left alone with it.
        order = sorted(drawn, key=lambda number: -drawn[number].horizon)
        with ThreadPoolExecutor(self._threads) as pool:
            scored = pool.map(
                lambda number: self._scores_of(number, drawn[number], members, check),
                order,
            )
            found = dict(zip(order, scored, strict=True))
        return np.concatenate([found[number] for number in drawn], axis=1)

    def _scores_of(self, number, drawn: FamilyDraw, members, check):
        tasks = drawn.draws.tasks
        if number not in self._loops:
            runs = LearnedRuns(self._optimizer, tasks[0].parameter_shapes, len(tasks))
            self._loops[number] = TrainingLoop(
                tasks[0], runs, np.arange(len(tasks)), drawn.draws
            )
        self._loops[number].load(drawn.draws)
        marks = record_steps(drawn.horizon)
        scores = []
        for meta_parameters in members:
            check()
            arguments = {**drawn.arguments, "meta_parameters": dict(meta_parameters)}
            found = self._loops[number](marks, arguments)
            scores.append(
                [
                    self.table.score(
                        task.name,
                        drawn.horizon,
                        known,
                        marks,
                        found.losses[:, run],
                        found.evaluation_losses[:, run],
                    )
                    for run, (task, known) in enumerate(
                        zip(tasks, drawn.arguments["total_steps"] > 0, strict=True)
                    )
                ]
            )
        return np.array(scores)

    def inner_steps(self, drawn: Mapping[int, FamilyDraw]) -> int:
        """Steps of all runs of one member."""
        return sum(d.horizon * len(d.draws.tasks) for d in drawn.values())


def record_steps(horizon: int) -> np.ndarray:
    """`[records]` steps from 0 to the horizon; always as many."""
    marks = np.geomspace(max(1.0, _FIRST_RECORD * horizon), horizon, _RECORDS)
    return np.concatenate([[0], np.round(marks)]).astype(np.int32)
