"""Meta-training in experiments, with the same settings for all compared optimizers."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

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
from meta_training.tasks.released.quadratics import Quadratic
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

    Args:
        optimizer: What is trained, with its settings.
        name: The name of the weights; with several seeds, the seed is appended.
        seeds: Of the initial weights and of training.
        training: Changes of the preset `default`, as in `TRAINING`.
        work: The folder of the runs; a later call resumes them.

    Returns:
        The weights at the last outer step.
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
