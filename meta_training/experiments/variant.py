r"""Meta-trains and evaluates one optimizer in a separate process:

    python -m meta_training.experiments.variant --parent=PID --job=WORK/job.json

XLA keeps whatever a process has compiled, a gigabyte for an architecture and more; an
experiment with ten of them would fill the memory. What the process leaves is on disk:
the weights of each seed, and in the cache of evaluations all that it ran.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

# Before TensorFlow is imported: its notes on the processor are no news here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from learned_optimizer.utils.atomic_write import atomic_write
from meta_training.experiments.evaluated import evaluate_tasks
from meta_training.experiments.experiment import SHARED_TRAINING, Job
from meta_training.experiments.training import load_seeds, meta_train
from meta_training.optimizers import (
    TrainableOptimizer,
    TrainedWeights,
    trainable_optimizer,
)

JOB = "job.json"


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
        seeds: Of start and training, a run each.

    Returns:
        The weights, whose evaluation is in the cache.

    Raises:
        RuntimeError: The process failed.
    """
    work = job.trained / _folder_name(optimizer, label, job.settings["training"])
    path = work / JOB
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != dict(job.settings):
            job.work.mkdir(parents=True, exist_ok=True)
            (job.work / SHARED_TRAINING).touch()
    work.mkdir(parents=True, exist_ok=True)
    description = {
        "optimizer": optimizer.name,
        "optimizer_settings": optimizer.to_dict(),
        "label": label,
        "seeds": list(seeds),
        "settings": dict(job.settings),
        "work": os.fspath(work),
        "cache": os.fspath(job.cache),
    }
    atomic_write(path, (json.dumps(description, indent=1) + "\n").encode())
    module = "meta_training.experiments.variant"
    status = subprocess.run(
        [sys.executable, "-m", module, f"--parent={os.getpid()}", f"--job={path}"],
        check=False,
    ).returncode
    if status:
        raise RuntimeError(
            "meta-training and evaluation must end well; started again, they go on "
            f"from the last checkpoint. Received: exit status {status} for {label!r}"
        )
    return load_seeds(label, seeds, work)


def _folder_name(optimizer, label, training) -> str:
    """The label, and a digest of all that meta-training depends on beside its seed."""
    key = [optimizer.name, optimizer.to_dict(), dict(training)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{label.replace(' ', '_').replace(',', '')}_{digest[:12]}"


def run_variant(description: Mapping[str, Any]) -> None:
    """Does what `train_and_evaluate` asks for, here."""
    settings = description["settings"]
    weights = meta_train(
        trainable_optimizer(
            description["optimizer"], description["optimizer_settings"]
        ),
        description["label"],
        description["seeds"],
        settings["training"],
        pathlib.Path(description["work"]),
    )
    cache = pathlib.Path(description["cache"])
    evaluate_tasks(settings, weights, (), cache, logging.info)


def main(arguments):
    """Runs the job and ends with the process that asked for it, should that end."""
    if len(arguments) > 1:
        raise app.UsageError(f"There are flags only. Received: {arguments[1:]}")
    parent = flags.FLAGS.parent
    if os.getppid() != parent:
        sys.exit(1)  # It ended while TensorFlow was imported.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    run_variant(json.loads(pathlib.Path(flags.FLAGS.job).read_text(encoding="utf-8")))


def _end_with(parent):
    # An orphan would write to the checkpoints that a new call goes on from.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("parent", None, "The process that waits.", required=True)
    flags.DEFINE_string("job", None, "What to do, as JSON.", required=True)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)
