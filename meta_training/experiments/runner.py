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
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from learned_optimizer import list_weights
from learned_optimizer.utils.atomic_write import replace_folder
from learned_optimizer.utils.csv_log import compress
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from learned_optimizer.weights import ALIASES
from meta_training.experiments.experiment import SHARED_TRAINING, Experiment, Job
from meta_training.optimizers import TrainedWeights, content_sha256

DONE = "done.json"
LOCK = ".lock"
PARAGRAPH = "paragraph.md"
# Bytes; a larger one is compressed.
LARGEST_CSV = 50_000


@dataclasses.dataclass(frozen=True)
class Request:
    """What to run: with which of `experiment.BUDGETS`, and on which weights.

    `seeds` is the number of draws per task instead of the budget's; `weights_name` is
    that of the weights on the command line.
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
            found["weights_sha256"] = _weights_sha256(self.weights)
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
    target, aside = output / experiment.name, output / f".{experiment.name}"
    works = output / "work" / experiment.name
    works.mkdir(parents=True, exist_ok=True)
    message = (
        "An experiment must run in one process at a time in an output folder. "
        f"Received: {works}, in which another process runs it"
    )
    with exclusive_lock(works / LOCK, message):
        if not target.exists() and read_done(aside) is not None:
            # It is complete, but its process was killed before the rename.
            os.replace(aside, target)
        # As JSON has them: lists, not tuples.
        settings = json.loads(json.dumps(request.settings(experiment)))
        done = read_done(target)
        if done is not None and done["settings"] == settings:
            log(f"{experiment.name}: done before, with the same settings")
            return False
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        # A separate folder for other settings.
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        work = works / digest.hexdigest()[:12]
        is_first_attempt = not work.exists()
        work.mkdir(exist_ok=True)
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
        done = {
            "experiment": experiment.name,
            "budget": request.budget,
            "command": request.command(experiment),
            "settings": settings,
            "weights": None,
            "seconds": round(time.monotonic() - began, 1),
            # Not where an earlier process did a part: of a killed attempt, or of runs
            # that other settings share.
            "seconds_are_all": is_first_attempt
            and not (work / SHARED_TRAINING).exists(),
            "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "cores": os.cpu_count(),
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        if experiment.evaluates_weights:
            done["weights"] = entry_of(request.weights)
        for path in aside.glob("*.csv"):
            if path.stat().st_size > LARGEST_CSV:
                compress(path)
        done["files"] = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        text = paragraph(experiment, done, aside)
        (aside / PARAGRAPH).write_text(text, encoding="utf-8")
        (aside / DONE).write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        replace_folder(aside, target)
    log(f"{experiment.name}: done after {done['seconds']:.0f} s, see {target}")
    return True


def paragraph(experiment: Experiment, done: dict, folder: pathlib.Path) -> str:
    """Claim, inference, findings, weights and budget, from a folder and its `done`."""
    settings = done["settings"]
    parts = [f"**What the paper claims, in our words.** {experiment.claim}"]
    if experiment.inference:
        parts.append(f"**What we infer, not the paper.** {experiment.inference}")
    parts.append(f"**What came out here.** {experiment.findings(folder, settings)}")
    if experiment.evaluates_weights:
        parts.append(sentence(done["weights"]))
    text = experiment.describe(folder, settings).removesuffix(".")
    parts.append(f"**Budget `{done['budget']}`.** {text[0].upper()}{text[1:]}.")
    return "\n\n".join(parts) + "\n"


def _weights_sha256(weights) -> str:
    """That of the card; without one, of the settings and all numbers."""
    return weights.card.get("sha256") or content_sha256(weights)


def entry_of(weights: TrainedWeights) -> dict[str, Any]:
    """What `done.json` says of the weights that were evaluated.

    So a report needs neither the weights nor what an alias meant at that time.
    """
    return {
        "name": weights.name,
        "sha256": _weights_sha256(weights),
        "training": _training_of(weights.card),
    }


def sentence(entry: Mapping[str, Any]) -> str:
    """A sentence about how the weights of an entry were meta-trained, by their card."""
    # Earlier versions did not note it.
    training = entry.get("training") or _training_of({})
    parts = []
    if training["task_set"]:
        parts.append(f"meta-trained on the task set `{training['task_set']}`")
        if training["outer_steps"]:
            parts[0] += f" for {training['outer_steps']} outer steps"
        if training["start"]:
            parts[0] += f", from `{training['start']}`"
    if training["calibrated"]:
        parts.append("calibrated")
    if not parts:
        return f"How `{entry['name']}` was meta-trained, its card does not say."
    return f"By its card, `{entry['name']}` was {', then '.join(parts)}."


def _training_of(card) -> dict[str, Any]:
    """The entries of a card for a report."""
    settings = card.get("settings", {})
    runs = [run["outer_steps"] for run in card.get("runs", [])]
    start = settings.get("init_weights")
    return {
        "task_set": settings.get("task_set"),
        "outer_steps": sum(runs) or card.get("outer_step"),
        # A path means nothing on another machine.
        "start": start if start in list_weights() else None,
        "calibrated": bool(card.get("calibrations")),
    }


def read_done(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of `done.json`, or None if it is missing or a file has changed.

    `paragraph.md` may change: it is written anew with every report.
    """
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        files = {k: v for k, v in done["files"].items() if k != PARAGRAPH}
        same = all(_sha256(folder / name) == files[name] for name in files)
        named = all(name in done for name in ("budget", "settings", "weights"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return done if same and named else None


def collect(output: pathlib.Path, results: pathlib.Path, names) -> list[str]:
    """Copies those of the named experiments that are done to `results/BUDGET/NAME`.

    A result there with a later date is kept: it was computed elsewhere.

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


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
