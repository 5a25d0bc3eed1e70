"""Runs an experiment and writes its folder atomically.

The output folder has, for each experiment that is done, a folder of its name with CSV
files, figures, `paragraph.md` and, written last, `done.json`. An experiment is first
written to a folder whose name begins with a dot, which is then renamed. `work/` keeps
what a later call resumes from: runs of meta-training and a cache of evaluations.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from learned_optimizer.utils.atomic_write import replace_folder
from learned_optimizer.utils.csv_log import compress
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from learned_optimizer.weights import ALIASES
from meta_training.experiments import evaluated_weights
from meta_training.experiments.experiment import SHARED_TRAINING, Experiment, Job
from meta_training.optimizers import TrainedWeights

DONE = "done.json"
LOCK = ".lock"
PARAGRAPH = "paragraph.md"
# Bytes; a larger one is compressed.
LARGEST_CSV = 50_000


@dataclasses.dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        budget: One of `experiment.BUDGETS`.
        seeds: Number of draws per task instead of the budget's.
        weights: The weights to evaluate.
        weights_name: Their name on the command line.
    """

    budget: str
    seeds: int | None
    weights: TrainedWeights
    weights_name: str = "default"

    def command(self, experiment: Experiment) -> str:
        """The command that repeats the experiment, without folders."""
        words = ["python", "-m", "meta_training.experiments", experiment.name]
        words += [f"--budget={self.budget}"]
        if self.seeds is not None:
            words.append(f"--seeds={self.seeds}")
        if experiment.evaluates_weights:
            # An alias may stand for other weights later.
            name = ALIASES.get(self.weights_name, self.weights_name)
            words.append(f"--weights={name}")
        return shlex.join(words)

    def settings(self, experiment: Experiment) -> dict[str, Any]:
        """Everything the result of an experiment depends on."""
        found = experiment.settings(self.budget, self.seeds)
        if experiment.evaluates_weights:
            found["weights_sha256"] = evaluated_weights.sha256_of(self.weights)
        return found


def run_experiment(
    experiment: Experiment,
    request: Request,
    output: pathlib.Path,
    log: Callable[[str], None] = lambda message: None,
) -> bool:
    """Runs an experiment, unless it is done with these settings.

    Returns:
        Whether it was run: False if it was done before.

    Raises:
        ValueError: Another process runs it there.
    """
    work = output / "work" / experiment.name
    work.mkdir(parents=True, exist_ok=True)
    message = (
        "An experiment must run in one process at a time in an output folder. "
        f"Received: {work}, in which another process runs it"
    )
    with exclusive_lock(work / LOCK, message):
        return _run_alone(experiment, request, output, log)


def _run_alone(experiment, request, output, log):
    target = output / experiment.name
    aside = output / f".{experiment.name}"
    if not target.exists() and read_done(aside) is not None:
        # It is complete, but its process was killed before the rename.
        os.replace(aside, target)
    settings = request.settings(experiment)
    done = read_done(target)
    # As JSON has them: lists, not tuples.
    if done is not None and done["settings"] == json.loads(json.dumps(settings)):
        log(f"{experiment.name}: done before, with the same settings")
        return False
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    # A separate folder for other settings.
    work = output / "work" / experiment.name / _digest(settings)[:12]
    is_first_attempt = not work.exists()
    work.mkdir(parents=True, exist_ok=True)
    job = Job(
        settings,
        request.weights,
        aside,
        work,
        output / "work" / "cache",
        lambda message: log(f"{experiment.name}: {message}"),
    )
    began = time.monotonic()
    experiment.run(job)
    seconds = round(time.monotonic() - began, 1)
    for path in aside.glob("*.csv"):
        if path.stat().st_size > LARGEST_CSV:
            compress(path)
    weights = None
    if experiment.evaluates_weights:
        weights = evaluated_weights.entry_of(request.weights)
    write_paragraph(experiment, request.budget, settings, weights, aside)
    entry = {
        "experiment": experiment.name,
        "budget": request.budget,
        "command": request.command(experiment),
        "settings": settings,
        "weights": weights,
        "seconds": seconds,
        # Not where an earlier process did a part: of a killed attempt, or of runs that
        # other settings share.
        "seconds_are_all": is_first_attempt and not (work / SHARED_TRAINING).exists(),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(aside.iterdir())
        },
    }
    (aside / DONE).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    replace_folder(aside, target)
    log(f"{experiment.name}: done after {entry['seconds']:.0f} s, see {target}")
    return True


def write_paragraph(experiment, budget, settings, weights, folder) -> None:
    """Writes `paragraph.md`: claim, inference, findings, weights, budget."""
    parts = [f"**What the paper claims, in our words.** {experiment.claim}"]
    if experiment.inference:
        parts.append(f"**What we infer, not the paper.** {experiment.inference}")
    parts.append(f"**What came out here.** {experiment.findings(folder, settings)}")
    if experiment.evaluates_weights:
        parts.append(evaluated_weights.sentence(weights))
    described = _sentence(experiment.describe(folder, settings))
    parts.append(f"**Budget `{budget}`.** {described}")
    text = "\n\n".join(parts) + "\n"
    (folder / PARAGRAPH).write_text(text, encoding="utf-8")


def rewrite_paragraph(experiment: Experiment, folder: pathlib.Path) -> bool:
    """Writes the paragraph of a finished experiment anew from its CSV files.

    Returns:
        Whether it differs from the one before.
    """
    before = read_done(folder)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    write_paragraph(
        experiment, before["budget"], before["settings"], before["weights"], new
    )
    sha256 = hashlib.sha256((new / PARAGRAPH).read_bytes()).hexdigest()
    done = {**before, "files": {**before["files"], PARAGRAPH: sha256}}
    if done == before:
        shutil.rmtree(new)
        return False
    (new / DONE).write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    replace_folder(new, folder)
    return True


def read_done(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of `done.json`, or None if it is missing or a file has changed."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        same = done["files"] == {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in done["files"]
        }
        named = all(name in done for name in ("budget", "settings", "weights"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return done if same and named else None


def collect(output: pathlib.Path, results: pathlib.Path, names) -> list[str]:
    """Copies the experiments that are done to the folder of results.

    A result there with a later date is kept: it was computed elsewhere.

    Args:
        output: The folder in which experiments were run.
        results: The folder of results, with a folder for each budget.
        names: The names of experiments.

    Returns:
        The names of those that were copied.
    """
    copied = []
    for name in names:
        done = read_done(output / name)
        if done is None:
            continue
        target = results / done["budget"] / name
        there = read_done(target)
        if there is not None and there.get("finished", "") > done.get("finished", ""):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(output / name, aside)
        replace_folder(aside, target)
        copied.append(name)
    return copied


def _digest(settings):
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sentence(text):
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
