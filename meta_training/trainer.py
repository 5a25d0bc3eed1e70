"""The outer loop: windows, meta-gradients, meta-parameter updates, checkpoints.

A run is a pure function of its settings: everything random follows from the seed and
the outer step. A checkpoint holds all that carries over from one outer step to the
next, so a run that was killed goes on from it and ends with the same meta-parameters
as one that was not.
"""

import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from learned_optimizer import (
    Config,
    Weights,
    fresh_weights,
    load_weights,
    save_weights,
)
from meta_training import estimators
from meta_training.files import load_arrays, save_arrays
from meta_training.meta_objectives import meta_objective
from meta_training.meta_optimizers import MetaOptimizer, norm
from meta_training.problem_batch import ProblemBatch
from meta_training.run_log import RunLog
from meta_training.training_config import TrainingConfig
from meta_training.trajectories import Trajectories
from meta_training.windows import Window

CHECKPOINT = "checkpoint.npz"
WEIGHTS = "weights.npz"
BEST = "best.npz"

Validate = Callable[[Mapping[str, np.ndarray]], dict[str, float]]


class Trainer:
    """One run of meta-training in its folder.

    Attributes:
        config: The settings.
        folder: Where checkpoint, weights and logs are.
        meta_parameters: `{name: array}`, the newest.
        outer_step: Updates done.
    """

    def __init__(self, config: TrainingConfig, folder):
        """Starts a run, or goes on with the one in `folder`.

        Args:
            config: The settings.
            folder: A new or empty one, or that of a run of the same settings.
        """
        self.config = config
        self.folder = pathlib.Path(folder)
        config.settle(self.folder)
        tasks = config.tasks()
        _check_positive(tasks, config)
        estimator_class = estimators.estimator(config.estimator)
        self.batch = ProblemBatch(
            tasks, config.block_size, estimator_class.replicas, config.objective_rows
        )
        self._start = self._start_weights()
        settings = {"sigma": config.pes_sigma} if config.estimator == "pes" else {}
        self.estimator = estimator_class(
            self.batch, self._start.config, config.unroll, **settings
        )
        self.trajectories = Trajectories(
            self.batch,
            self._start.config,
            config.trajectories,
            config.seed,
            [config.weight(task) for task in tasks],
        )
        self._meta_optimizer = MetaOptimizer(
            config.meta_optimizer,
            config.meta_learning_rate,
            decay_steps=config.outer_steps if config.cosine_decay else None,
            clip_value=config.clip_value,
            clip_norm=config.clip_norm,
        )
        self._validate: Validate | None = None
        # Without second thoughts of autograph: it would double the time of tracing.
        self._estimate = tf.function(
            self.estimator.estimate, jit_compile=True, autograph=False
        )
        self.meta_parameters = dict(self._start.meta_parameters)
        self.outer_step = 0
        self._slots = self._meta_optimizer.initial_state(self.meta_parameters)
        self._carried = self.estimator.initial_state()
        self._best_score = np.inf
        self._seconds = 0.0
        self._inner_steps = 0
        self._first = True
        if (self.folder / CHECKPOINT).is_file():
            self._restore()
        families = [self.batch.tasks[task].family for task in self.batch.problem_task]
        self._families = {
            family: np.array(families) == family for family in sorted(set(families))
        }

    @property
    def architecture(self) -> Config:
        """The architecture that is trained."""
        return self._start.config

    def validate_with(self, validate: Validate | None) -> None:
        """Has `validate` called with the meta-parameters every so often.

        Its result is a dict of figures in which a lower `score` is better: the
        weights that were best are kept apart.
        """
        self._validate = validate

    def train(self, until: int | None = None) -> dict[str, np.ndarray]:
        """Goes on until the last outer step, or `until`.

        Returns:
            The meta-parameters.
        """
        last = min(until or self.config.outer_steps, self.config.outer_steps)
        first_validation = (
            self._validate and self.config.validate_every and not self.outer_step
        )
        log = RunLog(self.folder, self.outer_step, last)
        try:
            if first_validation:
                self._run_validation(log)
            while self.outer_step < last:
                log.row(self.outer_step, self._outer_step())
                done = self.outer_step == last
                every = self.config.validate_every
                if self._validate and every and (self.outer_step % every == 0 or done):
                    self._run_validation(log)
                if self.outer_step % self.config.checkpoint_every == 0 or done:
                    log.flush()
                    self.save()
        finally:
            log.close()
            self.trajectories.close()
        return self.meta_parameters

    def _outer_step(self) -> dict[str, float]:
        """One window and one update of the meta-parameters."""
        began = time.monotonic()
        step = self.outer_step
        carry = self.trajectories.advance(step)
        num_steps = self.trajectories.window_steps(step)
        estimate = self._estimate(
            self.meta_parameters_on_device(),
            carry,
            self._carried,
            tf.constant(num_steps),
            tf.constant(self.trajectories.unroll_seed(step)),
        )
        window = estimate.window
        if step == 0:
            self._check_start(window)
        self.trajectories.take(window)
        self._carried = estimate.state
        gradient = {name: np.array(value) for name, value in estimate.gradient.items()}
        raw_norm = norm(gradient)
        skipped = not np.isfinite(raw_norm)
        if not skipped:
            gradient = self._meta_optimizer.clip(gradient)
            self.meta_parameters, self._slots = self._meta_optimizer.apply(
                self.meta_parameters, gradient, self._slots, step
            )
        self.outer_step += 1
        seconds = time.monotonic() - began
        self._seconds += seconds
        self._inner_steps += num_steps * self.batch.num_problems
        if self._first:
            self._first = False
            logging.info("first outer step after %.0f s", seconds)
        losses = np.array(window.losses)
        return {
            "loss": float(np.sum(losses * carry.weights)),
            "mean_loss": float(losses.mean()),
            "cut_off": float(np.sum(np.array(window.alive) == 0)),
            "fresh": float(np.sum(carry.fresh)),
            "window_steps": num_steps,
            "mean_log_learning_rate": float(np.mean(window.mean_log_learning_rate)),
            "gradient_norm": raw_norm,
            "clipped_gradient_norm": 0.0 if skipped else norm(gradient),
            "skipped": float(skipped),
            "meta_learning_rate": self._meta_optimizer.rate(step),
            "seconds": seconds,
            "inner_steps_per_second": num_steps * self.batch.num_problems / seconds,
        } | {
            f"loss/{family}": float(losses[members].mean())
            for family, members in self._families.items()
        }

    def meta_parameters_on_device(self):
        """The meta-parameters as tensors."""
        return {name: tf.constant(v) for name, v in self.meta_parameters.items()}

    def save(self) -> None:
        """Writes checkpoint and weights, each whole or not at all."""
        arrays = {
            "outer_step": np.array(self.outer_step),
            "best_score": np.array(self._best_score),
            "seconds": np.array(self._seconds),
            "inner_steps": np.array(self._inner_steps),
        }
        for prefix, part in self._parts().items():
            arrays |= {f"{prefix}/{name}": np.array(v) for name, v in part.items()}
        save_arrays(self.folder / CHECKPOINT, arrays)
        self._save_weights(WEIGHTS)

    def _parts(self):
        return {
            "meta_parameters": self.meta_parameters,
            "slots": self._slots,
            "estimator": self._carried,
            "trajectories": self.trajectories.state(),
        }

    def _restore(self) -> None:
        arrays = load_arrays(self.folder / CHECKPOINT)
        parts = {
            prefix: {
                name.removeprefix(f"{prefix}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{prefix}/")
            }
            for prefix in self._parts()
        }
        self.outer_step = int(arrays["outer_step"])
        self._best_score = float(arrays["best_score"])
        self._seconds = float(arrays["seconds"])
        self._inner_steps = int(arrays["inner_steps"])
        self.meta_parameters = parts["meta_parameters"]
        self._slots = parts["slots"]
        self._carried = parts["estimator"]
        self.trajectories.restore(parts["trajectories"])
        logging.info("resumed from outer step %d", self.outer_step)

    def _save_weights(self, name, **entries) -> None:
        weights = Weights(
            pathlib.Path(name).stem,
            self._start.config,
            self.meta_parameters,
            self._start.initial_learning_rate,
        )
        card = {
            "outer_step": self.outer_step,
            "inner_steps": self._inner_steps,
            "wall_clock_hours": round(self._seconds / 3600, 3),
            "cores": os.cpu_count(),
            "commit": _commit(),
            "settings": self.config.to_dict(),
            **entries,
        }
        save_weights(weights, self.folder / name, card)

    def _run_validation(self, log: RunLog) -> None:
        results = self._validate(self.meta_parameters)
        log.validation(self.outer_step, results)
        score = results.get("score", np.inf)
        if score < self._best_score:
            self._best_score = score
            self._save_weights(BEST, validation=results)
        logging.info(
            "outer step %d: validation score %.4f, best %.4f",
            self.outer_step,
            score,
            self._best_score,
        )

    def _start_weights(self) -> Weights:
        if self.config.init_weights is None:
            return fresh_weights(seed=self.config.seed)
        return load_weights(self.config.init_weights)

    def _check_start(self, window: Window) -> None:
        """Refuses tasks whose objective cannot be trained on."""
        first = np.array(window.initial_objective)
        needs_positive = meta_objective(
            self.config.unroll.meta_objective
        ).needs_positive
        for problem, value in enumerate(first):
            task = self.batch.tasks[self.batch.problem_task[problem]]
            if not np.isfinite(value):
                raise ValueError(
                    "the objective of a task must be finite at its start; that of "
                    f"{task.name} is {value}"
                )
            if needs_positive and value < 0:
                raise ValueError(
                    f"the meta-objective {self.config.unroll.meta_objective} needs "
                    f"objectives of 0 or more; that of {task.name} is {value}"
                )


def _check_positive(tasks, config):
    if not meta_objective(config.unroll.meta_objective).needs_positive:
        return
    negative = sorted({task.name for task in tasks if not task.positive})
    if negative:
        raise ValueError(
            f"the meta-objective {config.unroll.meta_objective} needs objectives of 0 "
            f"or more, which these tasks may not have: {', '.join(negative)}"
        )


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
