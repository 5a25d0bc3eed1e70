"""Meta-training in experiments, with the same settings for all compared optimizers.

XLA keeps whatever a process has compiled, a gigabyte or more for an architecture; an
experiment with ten of them would fill the memory. So each is meta-trained and evaluated
in a separate process, which leaves its results on disk: the weights of each seed, and
all that it ran in the cache of evaluations.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from meta_training.experiments.evaluated import evaluate_tasks
from meta_training.experiments.experiment import SHARED_TRAINING, Job
from meta_training.optimizers import (
    TrainableOptimizer,
    TrainedWeights,
    fresh_trained,
    load_trained,
    save_trained,
)
from meta_training.outer.run_folder import WEIGHTS
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set, task_set
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron

# Changes of the preset `default`, from fresh weights.
TRAINING: dict[str, dict[str, Any]] = {
    "small": {
        "task_set": "experiments_small",
        "outer_steps": 4,
        "meta_learning_rate": 2e-3,
        "min_window_steps": 5,
        "mean_window_steps": 8.0,
        "max_window_steps": 12,
        "mean_horizon": 30.0,
        "block_size": 8,
        "parts": 1,
        "objective_rows": 16,
        "checkpoint_every": 2,
    },
    "full": {
        "task_set": "experiments",
        "outer_steps": 200,
        "meta_learning_rate": 2e-3,
        "min_window_steps": 50,
        "mean_window_steps": 100.0,
        "max_window_steps": 200,
        "mean_horizon": 1000.0,
        "checkpoint_every": 10,
    },
}


@register_task_set("experiments_small")
def experiments_small():
    """Three tasks in two computations, to check that a command works."""
    return [
        Quadratic(20),
        Perceptron(8, (10,), 3, batch_size=16, rows=128),
        Perceptron(8, (10,), 3, batch_size=16, rows=128, activation="tanh"),
    ]


@register_task_set("experiments")
def experiments():
    """Every third task of `default_networks`: all kinds, in a third of the time."""
    return task_set("default_networks")[::3]


@register_task_set("released_families")
def released_families():
    """The first task of each family of `released`, for evaluations of many weights."""
    first = {}
    for task in task_set("released"):
        first.setdefault(task.family, task)
    return list(first.values())


def meta_train(
    optimizer: TrainableOptimizer,
    name: str,
    seeds: Sequence[int],
    training: Mapping[str, Any],
    work: pathlib.Path,
) -> list[TrainedWeights]:
    """Meta-trains fresh weights of an optimizer once for each seed.

    `training` are changes of the preset `default`, as in `TRAINING`. A later call
    resumes the runs in the folder `work`. Several weights have their seed in the name.
    """
    for seed in seeds:
        start = work / f"start{seed}.npz"
        # The card is written last. The weights depend on the seed alone.
        if not (start.is_file() and start.with_suffix(".json").is_file()):
            work.mkdir(parents=True, exist_ok=True)
            save_trained(fresh_trained(optimizer, seed), start)
        config = preset(
            "default",
            optimizer=optimizer.name,
            seed=seed,
            init_weights=str(start),
            # As in the architecture of the initial weights.
            nominal=None,
            validate_every=0,
            **training,
        )
        Trainer(config, work / f"seed{seed}").train()
    return load_seeds(name, seeds, work)


def load_seeds(
    name: str, seeds: Sequence[int], work: pathlib.Path
) -> list[TrainedWeights]:
    """The result of an earlier `meta_train`, from its folder."""
    return [
        dataclasses.replace(
            load_trained(work / f"seed{seed}" / WEIGHTS),
            name=name if len(seeds) == 1 else f"{name}, seed {seed}",
        )
        for seed in seeds
    ]


def describe_training(training: Mapping[str, Any]) -> str:
    """The settings of meta-training in words, without the size of the task set.

    The set may have changed since.
    """
    return (
        f"{training['outer_steps']} outer steps from fresh weights on the task set "
        f"`{training['task_set']}`, windows of {training['mean_window_steps']:g} inner "
        f"steps and trajectories of {training['mean_horizon']:g}, both on average"
    )


def train_and_evaluate(
    job: Job, optimizer: TrainableOptimizer, label: str, seeds: Sequence[int]
) -> list[TrainedWeights]:
    """Meta-trains an optimizer and evaluates it into the cache, in a separate process.

    The folder of the runs depends on the optimizer and its training alone. So runs
    that are done are not repeated when the evaluation or the weights beside them
    change. The settings of the job name `training`, and what is evaluated; `label` is
    that of the weights, of which there are one for each seed.

    Raises:
        RuntimeError: The process failed.
    """
    # Beside what stays of other settings, which share it.
    trained = job.work.parent / "trained"
    work = trained / _folder_name(optimizer, label, job.settings["training"])
    if work.exists():
        job.work.mkdir(parents=True, exist_ok=True)
        (job.work / SHARED_TRAINING).touch()
    work.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(
        target=run_variant,
        args=(dict(job.settings), optimizer, label, list(seeds), work, job.cache),
    )
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(
            "Meta-training and evaluation must end without an error; started again, "
            "they resume from the last checkpoint. Received: exit status "
            f"{process.exitcode} for {label!r}"
        )
    return load_seeds(label, seeds, work)


def _folder_name(optimizer, label, training) -> str:
    """The label, and a digest of all that meta-training depends on beside its seed."""
    key = [optimizer.name, optimizer.to_dict(), dict(training)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{label.replace(' ', '_').replace(',', '')}_{digest[:12]}"


def run_variant(settings, optimizer, label, seeds, work, cache) -> None:
    """Does what `train_and_evaluate` asks for; the process ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    weights = meta_train(optimizer, label, seeds, settings["training"], work)
    evaluate_tasks(settings, weights, (), cache, logging.info)


def _end_with_parent():
    # An orphan would write to the checkpoints that a new call resumes from.
    multiprocessing.parent_process().join()
    os._exit(1)
