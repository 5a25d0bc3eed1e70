"""The outer loop over generations: draw, train, tell the estimator, save.

Beside the population two more members train on every generation's draws: the weights
that the search started from and where it stands now. Their scores, on draws that
neither has seen, are the curve of the search, `search.csv`.
"""

import dataclasses
import json
import pathlib
import threading
import time

import numpy as np
from absl import logging

from learned_optimizer.utils import run_folder
from learned_optimizer.utils.arrays import under_prefix, with_prefix
from learned_optimizer.utils.csv_log import CsvLog
from learned_optimizer.utils.flags import check_settings, setting
from learned_optimizer.utils.signals import on_sigterm
from meta_training.optimizers import TrainedWeights, content_sha256, load_trained
from meta_training.outer.progress import Progress
from meta_training.outer.run_folder import WEIGHTS, RunFolder
from meta_training.tasks import task_set
from meta_training.whole_runs.estimators import ESTIMATORS, agreement
from meta_training.whole_runs.generations import RunConfig, WholeRuns
from meta_training.whole_runs.parametrisation import (
    PARAMETRISATIONS,
    Parametrisation,
)
from meta_training.whole_runs.reference import REFERENCE, ReferenceTable
from meta_training.whole_runs.truncated_gradients import TruncatedGradients

CONFIG, CURVE = "config.json", "search.csv"
# What a search may change when it goes on.
MAY_CHANGE = ("inner_steps", "patience", "threads", "reference")
_COLUMNS = (
    *("generation", "inner_steps", "seconds", "start_score", "center_score"),
    *("mean_score", "best_score", "agreement", "sigma"),
)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The settings of a search; `setting` documents each field."""

    weights: str = setting("default", "Name or path of the weights it starts from.")
    task_set: str = setting("default_networks", "What the runs train.")
    parametrisation: str = setting(
        "readouts", "Which numbers are searched.", choices=PARAMETRISATIONS
    )
    estimator: str = setting(
        "cma", "How scores become a step.", choices=tuple(ESTIMATORS)
    )
    members: int = setting(16, "Members of a generation.", at_least=2)
    sigma: float = setting(
        0.1, "Standard deviation of the numbers at the start.", above=0
    )
    learning_rate: float = setting(0.01, "Of Adam, where it is used.", above=0)
    inner_steps: int = setting(
        30_000_000, "Steps of all runs, after which it ends.", at_least=1
    )
    patience: int | None = setting(
        20,
        "It ends where both halves of so many generations disagree on average.",
        at_least=1,
        zero_is_none=True,
    )
    seed: int = setting(0, "Of everything random.", at_least=0)
    threads: int = setting(1, "Families of tasks that run side by side.", at_least=1)
    reference: str = setting(str(REFERENCE), "The reference table.")
    runs: RunConfig = RunConfig()

    def __post_init__(self):
        check_settings(self)

    def write_or_verify(self, folder: pathlib.Path) -> None:
        """Makes `folder` that of this search; ValueError where it is another's."""
        wanted, defaults = (
            json.loads(json.dumps(dataclasses.asdict(config)))
            for config in (self, SearchConfig())
        )
        run_folder.write_or_verify(folder / CONFIG, wanted, defaults, MAY_CHANGE)


class Terminated(Exception):
    """SIGTERM came; the checkpoint of the last generation is there."""


class Search:
    """One search in a new or empty folder, or in that of one of the same settings.

    Raises:
        ValueError: The settings cannot be searched with, and then `folder` is left as
            it was; or it is that of another search.
    """

    def __init__(self, config: SearchConfig, folder):
        self.config = config
        self.folder = pathlib.Path(folder)
        self._files = RunFolder(self.folder)
        self._progress = Progress()
        self._start = load_trained(config.weights)
        self._parameters = Parametrisation(self._start, config.parametrisation)
        self.estimator = ESTIMATORS[config.estimator](
            self._parameters.size,
            config.members,
            config.sigma,
            config.seed,
            config.learning_rate,
        )
        tasks = task_set(config.task_set)
        self._runs = WholeRuns(
            tasks,
            self._parameters.optimizer,
            ReferenceTable.load(pathlib.Path(config.reference)),
            config.runs,
            config.threads,
        )
        self._gradients = None
        if self.estimator.is_guided:
            self._gradients = TruncatedGradients(
                tasks, self._start.optimizer, config.seed
            )
        self._agreements: list[float] = []
        self._terminated = threading.Event()
        with self._files.exclusive_lock():
            config.write_or_verify(self.folder)
            self._restore()

    @property
    def generation(self) -> int:
        """Generations done."""
        return self._progress.outer_step

    @property
    def weights(self) -> TrainedWeights:
        """Where the search stands."""
        return self._parameters.weights(self.estimator.center, "weights")

    def train(self, until: int | None = None) -> TrainedWeights:
        """Goes on until the inner steps are spent, or `until` generations are done.

        Raises:
            Terminated: SIGTERM came.
            ValueError: Another process searches in the folder.
            OSError: A checkpoint cannot be written; the last one is left whole.
        """
        with self._files.exclusive_lock(), on_sigterm(self._terminated.set):
            log = CsvLog(self.folder / CURVE, _COLUMNS, self.generation - 1, digits=6)
            try:
                while not self._is_done(until):
                    log.write({"generation": self.generation, **self._generation()})
                    log.flush()
                    self._progress.outer_step += 1
                    self._save()
            finally:
                log.close()
        return self.weights

    def _is_done(self, until):
        if until is not None and self.generation >= until:
            return True
        recent = self._agreements[-(self.config.patience or 1) :]
        if len(recent) == self.config.patience and np.mean(recent) <= 0:
            logging.warning(
                "the halves of the last %d generations disagree: their scores are "
                "noise, and the search ends",
                len(recent),
            )
            return True
        return self._progress.inner_steps >= self.config.inner_steps

    def _generation(self) -> dict[str, float]:
        began = time.monotonic()
        center = self.estimator.center
        if self._gradients is not None:
            standing = self._parameters.weights(center, "center").meta_parameters
            gradients = self._gradients(standing, self.generation)
            self.estimator.observe(self._parameters.gradient(center, gradients))
        points = self.estimator.ask(self.generation)
        generator = np.random.default_rng([self.config.seed, self.generation, 1])
        drawn = self._runs.draw(generator)
        judged = [np.zeros_like(center), center, *points]
        scores = self._runs.scores(
            drawn, [self._parameters.arrays(point) for point in judged], self._check
        ).mean(axis=1)
        self._agreements.append(agreement(points - center, scores[2:]))
        self.estimator.tell(points, scores[2:])
        self._progress.inner_steps += self._runs.inner_steps(drawn) * len(judged)
        self._progress.seconds += time.monotonic() - began
        figures = {
            "inner_steps": self._progress.inner_steps,
            "seconds": self._progress.seconds,
            "start_score": scores[0],
            "center_score": scores[1],
            "mean_score": scores[2:].mean(),
            "best_score": scores[2:].max(),
            "agreement": self._agreements[-1],
            "sigma": self.estimator.sigma,
        }
        logging.info(
            "generation %d: the start has %.3f, the center %.3f, the best %.3f",
            self.generation,
            *(figures[f"{which}_score"] for which in ("start", "center", "best")),
        )
        return figures

    def _check(self):
        if self._terminated.is_set():
            raise Terminated(
                f"generation {self.generation} was left, as SIGTERM asks; the search "
                "goes on from the one before"
            )

    def _save(self):
        arrays = self._progress.to_arrays()
        arrays["agreements"] = np.array(self._agreements)
        for prefix, part in self._parts().items():
            arrays |= with_prefix(prefix, part.state())
        card = {
            **self._progress.on_card(),
            "start_sha256": content_sha256(self._start),
            "search": dataclasses.asdict(self.config),
        }
        self._files.save(arrays, self.weights, card)

    def _parts(self):
        """What has a state that a checkpoint holds."""
        parts = {"estimator/": self.estimator}
        if self._gradients is not None:
            parts["trajectories/"] = self._gradients
        return parts

    def _restore(self):
        arrays = self._files.read_checkpoint()
        if not arrays:
            return
        self._progress.restore(arrays)
        self._agreements = arrays["agreements"].tolist()
        for prefix, part in self._parts().items():
            part.restore(under_prefix(prefix, arrays))
        # Weights come after their checkpoint, and a process can be killed between.
        if self._files.card(WEIGHTS).get("outer_step") != self.generation:
            self._save()
        logging.info("resumed after generation %d", self.generation)
