"""Meta-trains and evaluates one optimizer in a separate process.

XLA keeps whatever a process has compiled, a gigabyte or more for an architecture; an
experiment with ten of them would fill the memory. The process leaves its results on
disk: the weights of each seed, and all that it ran in the cache of evaluations.
"""

import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Sequence

from absl import logging

from meta_training.experiments.evaluated import evaluate_tasks
from meta_training.experiments.experiment import SHARED_TRAINING, Job
from meta_training.experiments.training import load_seeds, meta_train
from meta_training.optimizers import TrainableOptimizer, TrainedWeights


def train_and_evaluate(
    job: Job, optimizer: TrainableOptimizer, label: str, seeds: Sequence[int]
) -> list[TrainedWeights]:
    """Meta-trains an optimizer and evaluates it into the cache, in a separate process.

    The folder of the runs depends on the optimizer and its training alone. So runs
    that are done are not repeated when the evaluation or the weights beside them
    change.

    Args:
        job: The experiment; its settings name `training`, and what is evaluated.
        optimizer: What is trained, with its settings.
        label: Of the weights.
        seeds: Of initial weights and training, a run each.

    Returns:
        The weights, whose evaluation is in the cache.

    Raises:
        RuntimeError: The process failed.
    """
    work = job.trained / _folder_name(optimizer, label, job.settings["training"])
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
