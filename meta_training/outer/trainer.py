"""The outer loop: windows, meta-gradients, meta-parameter updates, checkpoints.

A run is a pure function of its settings: all random numbers follow from the seed and
the outer step. A checkpoint holds all state that carries over from one outer step to
the next. So a run that is killed resumes from it and ends with the same meta-parameters
as an uninterrupted one.
"""

import contextlib
import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from learned_optimizer.utils.arrays import under_prefix, with_prefix
from learned_optimizer.utils.run_log import SilentLog
from meta_training import estimators
from meta_training.distribution import Cohort, Distribution, Report, cohort_seed
from meta_training.distribution.in_one_process import OneDevice
from meta_training.inner.meta_objectives import meta_objective
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories
from meta_training.optimizers import (
    TrainableOptimizer,
    TrainedWeights,
    content_sha256,
    save_trained,
    starting_weights,
)
from meta_training.outer.meta_optimizers import MetaOptimizer, norm
from meta_training.outer.progress import Progress
from meta_training.outer.run_folder import BEST, WEIGHTS, RunFolder, TrainingLog
from meta_training.outer.training_config import FILE as CONFIG
from meta_training.outer.training_config import TrainingConfig

Validate = Callable[[Mapping[str, np.ndarray]], dict[str, float]]


class Trainer:
    """One run of meta-training in its folder.

    Attributes:
        folder: Where checkpoint, weights and logs are; all processes share it.
        meta_parameters: `{name: array}`, the current ones.
    """

    def __init__(
        self, config: TrainingConfig, folder, distribution: Distribution | None = None
    ):
        """Starts a run in a new or empty folder, or resumes the one that is there.

        `distribution` is where windows are computed; None: `OneDevice`.

        Raises:
            ValueError: The settings do not fit together, in which case `folder` is not
                touched; or `folder` holds something else, or a checkpoint that is
                damaged or of other tasks.
        """
        self._progress = Progress()
        self.config = config
        self.folder = pathlib.Path(folder)
        self._files = RunFolder(self.folder)
        self.distribution = distribution or OneDevice()
        self.distribution.check(config.cohorts)
        tasks = config.tasks()
        self._meta_objective = meta_objective(config.unroll.meta_objective)
        self._meta_objective.check_tasks(tasks)
        estimator_class = estimators.estimator(config.estimator)
        self.batch = ProblemBatch(
            tasks,
            config.block_size,
            estimator_class.replicas,
            config.objective_rows,
            config.parts,
        )
        self._start = starting_weights(
            config.optimizer, config.init_weights, config.nominal, config.seed
        )
        settings = {"sigma": config.pes_sigma} if config.estimator == "pes" else {}
        self.estimator, estimate = estimators.compiled_estimator(
            estimator_class, self.batch, self.optimizer, config.unroll, **settings
        )
        weights = [config.weight(task) for task in tasks]
        self.cohorts = [
            Cohort(
                number,
                Trajectories(
                    self.batch,
                    self.optimizer,
                    config.trajectories,
                    cohort_seed(config.seed, number),
                    weights,
                    config.seed,
                ),
                self.estimator.initial_state(),
            )
            for number in self.distribution.numbers(config.cohorts)
        ]
        self._meta_optimizer = MetaOptimizer(
            config.meta_optimizer,
            config.meta_learning_rate,
            decay_steps=config.outer_steps if config.cosine_decay else None,
            clip_value=config.clip_value,
            clip_norm=config.clip_norm,
        )
        self._validate: Validate | None = None
        self.meta_parameters = dict(self._start.meta_parameters)
        self._slots = self._meta_optimizer.initial_state(self.meta_parameters)
        # After all checks of the settings, so that wrong ones leave no trace.
        if self.distribution.is_chief:
            # Before the lock file, which must not appear in another folder.
            config.verify(self.folder)
        with self._exclusive_lock():
            if self.distribution.is_chief:
                config.write_or_verify(self.folder)
            # Each process loads its initial weights, which may differ by mistake.
            agreed = {**config.to_dict(), "start": content_sha256(self._start)}
            self.distribution.check_agreement(
                json.dumps(agreed, sort_keys=True), self.folder / CONFIG
            )
            self._restore()
        self.distribution.start(self.cohorts, estimate)
        families = [self.batch.tasks[task].family for task in self.batch.problem_task]
        self._families = {
            family: np.array(families) == family for family in sorted(set(families))
        }

    @property
    def outer_step(self) -> int:
        """Updates done."""
        return self._progress.outer_step

    @property
    def optimizer(self) -> TrainableOptimizer:
        """What is trained."""
        return self._start.optimizer

    def validate_with(self, validate: Validate | None) -> None:
        """Sets the function that validates the meta-parameters.

        It is called every `validate_every` outer steps and returns a dict of figures in
        which a lower `score` is better; the best weights are kept as `best.npz`. Only
        the chief validates.
        """
        self._validate = validate if self.distribution.is_chief else None

    def train(self, until: int | None = None) -> dict[str, np.ndarray]:
        """Trains until the last outer step or until `until`; a later call continues.

        Returns:
            The meta-parameters.

        Raises:
            ValueError: The objective of a task cannot be trained on, or another process
                trains in the folder.
            OSError: A checkpoint cannot be written. The last one stays complete.
        """
        with self._exclusive_lock():
            return self._train(until)

    def _exclusive_lock(self):
        """Locks the folder if this process writes to it."""
        if self.distribution.is_chief:
            return self._files.exclusive_lock()
        return contextlib.nullcontext()

    def _train(self, until):
        last = self.config.outer_steps
        if until is not None:
            last = min(until, last)
        every = self.config.validate_every if self._validate else 0
        log = SilentLog()
        if self.distribution.is_chief:
            log = TrainingLog(self.folder, self.outer_step, last)
        try:
            if every and not self.outer_step:
                self._run_validation(log)
            while self.outer_step < last:
                log.row(self.outer_step, self._outer_step())
                done = self.outer_step == last
                if every and (self.outer_step % every == 0 or done):
                    self._run_validation(log)
                if self.outer_step % self.config.checkpoint_every == 0 or done:
                    log.flush()
                    self.save()
        finally:
            log.close()
        return self.meta_parameters

    def _outer_step(self) -> dict[str, float]:
        """Runs the windows of one outer step and updates the meta-parameters."""
        began = time.monotonic()
        step = self.outer_step
        reports, figures = self.distribution.next_outcome(self.meta_parameters)
        for report in reports:
            self._check_start(report)
        gradient = {
            name: sum(report.gradient[name] for report in reports)
            * np.float32(1 / len(reports))
            for name in self.meta_parameters
        }
        raw_norm = norm(gradient)
        skipped = not np.isfinite(raw_norm)
        if skipped:
            logging.warning(
                "outer step %d is skipped: its meta-gradient is not finite "
                "(--clip_through_time bounds the gradient between inner steps)",
                step,
            )
        else:
            gradient = self._meta_optimizer.clip(gradient)
            self.meta_parameters, self._slots = self._meta_optimizer.apply(
                self.meta_parameters, gradient, self._slots, step
            )
        self._progress.outer_step += 1
        seconds = time.monotonic() - began
        self._progress.seconds += seconds
        inner_steps = sum(
            int(report.num_steps) * self.batch.num_problems for report in reports
        )
        self._progress.inner_steps += inner_steps
        losses = np.array([report.losses for report in reports])
        weighted = [np.sum(report.losses * report.weights) for report in reports]
        rates = [report.mean_log_learning_rate for report in reports]
        return {
            "loss": float(np.mean(weighted)),
            "mean_loss": float(losses.mean()),
            "cut_off": float(sum(np.sum(report.alive == 0) for report in reports)),
            "fresh": float(sum(np.sum(report.fresh) for report in reports)),
            "window_steps": float(np.mean([report.num_steps for report in reports])),
            "mean_log_learning_rate": float(np.mean(rates)),
            "gradient_norm": raw_norm,
            "clipped_gradient_norm": 0.0 if skipped else norm(gradient),
            "skipped": float(skipped),
            "meta_learning_rate": self._meta_optimizer.rate(step),
            "seconds": seconds,
            "inner_steps_per_second": inner_steps / seconds,
            **figures,
        } | {
            f"loss/{family}": float(losses[:, members].mean())
            for family, members in self._families.items()
        }

    def save(self) -> None:
        """Writes checkpoint and weights, each atomically.

        In a run of several processes, all must call this together.

        Raises:
            OSError: They cannot be written.
        """
        arrays = {}
        for cohort in self.cohorts:
            arrays |= cohort.state()
        arrays = self.distribution.gather(arrays, self.folder)
        if not self.distribution.is_chief:
            return
        arrays |= self._arrays()
        self._files.save(arrays, self._weights(WEIGHTS), self._card())

    def _arrays(self):
        """What a checkpoint holds beside the cohorts."""
        return {
            **self._progress.to_arrays(),
            **with_prefix("meta_parameters/", self.meta_parameters),
            **with_prefix("slots/", self._slots),
        }

    def _restore(self) -> None:
        """Resumes from the checkpoint, if there is one."""
        arrays = self._files.read_checkpoint()
        if not arrays:
            return
        # What `save` would write now.
        wanted = self._arrays()
        for cohort in self.cohorts:
            wanted |= cohort.state()
        self._files.check_checkpoint(arrays, wanted)
        if self.distribution.is_chief:
            self._files.check_optimizer(self.optimizer)
        self._progress.restore(arrays)
        self.meta_parameters = under_prefix("meta_parameters/", arrays)
        self._slots = under_prefix("slots/", arrays)
        for cohort in self.cohorts:
            cohort.restore(arrays, self.outer_step)
        if self.distribution.is_chief:
            self._finish_saving()
        logging.info("resumed from outer step %d", self.outer_step)

    def _finish_saving(self) -> None:
        """Completes what a killed process left before or after its checkpoint."""
        # Weights are written after the checkpoint. Existing ones of this step stay, for
        # their card names the commit and the hours of the process that made them.
        if self._files.card(WEIGHTS).get("outer_step") != self.outer_step:
            self._save_weights(WEIGHTS, self._card())
        # Validation comes before the checkpoint.
        validated = self._files.card(BEST).get("validation", {})
        self._progress.best_score = min(
            self._progress.best_score, validated.get("score", np.inf)
        )

    def _save_weights(self, name, card):
        save_trained(self._weights(name), self.folder / name, card)

    def _weights(self, name) -> TrainedWeights:
        """The current weights, named after the file for them."""
        return TrainedWeights(
            pathlib.Path(name).stem,
            self.optimizer,
            self.meta_parameters,
            self._start.initial_learning_rate,
        )

    def _card(self) -> dict[str, Any]:
        return {
            **self._progress.on_card(),
            "commit": _commit(),
            "settings": self.config.to_dict(),
        }

    def _run_validation(self, log: TrainingLog | SilentLog) -> None:
        results = self._validate(self.meta_parameters)
        log.validation(self.outer_step, results)
        score = results.get("score", np.inf)
        if score < self._progress.best_score:
            self._progress.best_score = score
            self._save_weights(BEST, {**self._card(), "validation": results})
        logging.info(
            "outer step %d: validation score %.4f, best %.4f",
            self.outer_step,
            score,
            self._progress.best_score,
        )

    def _check_start(self, report: Report) -> None:
        """Raises ValueError where a task's objective cannot be trained on."""
        if report.first:
            for problem, value in enumerate(report.initial_objective):
                task = self.batch.tasks[self.batch.problem_task[problem]]
                self._meta_objective.check_start(task, value)


def _commit() -> str | None:
    """The commit of the working tree, None outside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
