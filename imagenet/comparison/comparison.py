"""Optimizers × networks × seeds, on the same data and from the same start.

Each run is a process of `imagenet.train`, so it goes on from its checkpoint when the
comparison was interrupted. A baseline is tried at several rates for some steps first,
each the beginning of the whole run; the rate with the lowest loss there goes on.
"""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
from absl import logging

from imagenet.optimizers import OPTIMIZERS, choose
from imagenet.run.settings import identity_in
from imagenet.run.termination import Terminated
from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv

PLAN_FILE = "comparison.json"
# What the loss of a run is judged by, at any step.
LAST_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        model: Its network.
        optimizer: A key of `imagenet.optimizers.OPTIMIZERS`.
        learning_rate: None: the usual one.
        seed: Of its start and data.
    """

    model: str
    optimizer: str
    learning_rate: float | None
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        rate = "" if self.learning_rate is None else f"_{self.learning_rate:.3g}"
        return f"{self.model}_{self.optimizer}{rate}_seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        models: Keys of `imagenet.models.MODELS`.
        optimizers: Keys of `imagenet.optimizers.OPTIMIZERS`.
        seeds: Of starts and data.
        factors: Of a baseline's usual rate, the ones that are tried.
        probe_steps: Steps after which the rate is chosen.
        train_steps: Steps of a run.
        batch_size: Images a step.
        steps_per_epoch: Of the data.
        flags: Of `imagenet.train`, the same for all runs.
        folder: Where the runs are.
        module: That is run.

    Raises:
        ValueError: A number is out of its range or a name is unknown.
    """

    models: tuple[str, ...]
    optimizers: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: tuple[float, ...]
    probe_steps: int
    train_steps: int
    batch_size: int
    steps_per_epoch: float
    flags: tuple[str, ...]
    folder: pathlib.Path
    module: str = "imagenet.train"

    def __post_init__(self):
        unknown = sorted(set(self.optimizers) - set(OPTIMIZERS))
        if unknown:
            raise ValueError(
                f"optimizers must be of {', '.join(OPTIMIZERS)}. "
                f"Received: {', '.join(unknown)}"
            )
        if not (self.models and self.optimizers and self.seeds and self.factors):
            raise ValueError(
                "a comparison needs models, optimizers, seeds and factors. "
                f"Received: {self.models}, {self.optimizers}, {self.seeds}, "
                f"{self.factors}"
            )
        if min(self.factors) <= 0 or not 0 < self.probe_steps <= self.train_steps:
            raise ValueError(
                "factors must be positive, and the probe's steps at most those of a "
                f"run. Received: {self.factors}, {self.probe_steps} of "
                f"{self.train_steps}"
            )

    def candidates(self, model: str, optimizer: str) -> list[list[Run]]:
        """For each rate that is tried, its runs: one a seed."""
        rates: list[float | None] = [None]
        if optimizer != "hierarchical_rnn" and len(self.factors) > 1:
            usual = choose(
                optimizer,
                batch_size=self.batch_size,
                train_steps=self.train_steps,
                steps_per_epoch=self.steps_per_epoch,
            ).learning_rate
            rates = [usual * factor for factor in self.factors]
        return [
            [Run(model, optimizer, rate, seed) for seed in self.seeds] for rate in rates
        ]

    def rows(self, run: Run) -> list[dict[str, float]]:
        """The training curve of a run, as far as it is."""
        path = self.folder / run.name / "train.csv"
        return read_csv(path) if path.is_file() else []

    def weights_of(self, run: Run) -> tuple[str, str]:
        """Name and sha256 of the weights with which a run was made.

        What their name stands for now may be others. Both are empty for a baseline.

        Raises:
            ValueError: The run does not say.
        """
        if run.optimizer != "hierarchical_rnn":
            return "", ""
        found = identity_in(self.folder / run.name) or {}
        if "weights_sha256" not in found:
            raise ValueError(
                "a run of the learned optimizer must say which weights it had. "
                f"Received: none in {self.folder / run.name}"
            )
        return found["weights"], found["weights_sha256"]


def check_plan(plan: Plan) -> None:
    """Finds out whether the runs in the folder are of such a comparison.

    A run may be made longer, a comparison may not: its rates were chosen under
    schedules that end at its last step.

    Raises:
        ValueError: They are as long as another one has them.
    """
    path = plan.folder / PLAN_FILE
    if not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("train_steps") != plan.train_steps:
        raise ValueError(
            "output must be new, or that of a comparison of as many steps. Received: "
            f"{plan.folder}, of {found.get('train_steps')} steps, for "
            f"train_steps={plan.train_steps}"
        )


def settle_plan(plan: Plan) -> None:
    """Makes the folder that of the comparison.

    Raises:
        ValueError: See `check_plan`.
    """
    check_plan(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"train_steps": plan.train_steps}) + "\n"
    atomic_write(plan.folder / PLAN_FILE, content.encode())


def run_all(plan: Plan) -> list[Run]:
    """Runs what has not been run yet.

    Returns:
        The runs that went to their end: of each network and optimizer those at the
        rate that was chosen, one a seed.

    Raises:
        RuntimeError: A run failed.
    """
    finished = []
    for model in plan.models:
        for optimizer in plan.optimizers:
            candidates = plan.candidates(model, optimizer)
            chosen = candidates[0]
            if len(candidates) > 1:
                for runs in candidates:
                    for run in runs:
                        _advance(plan, run, plan.probe_steps)
                chosen = min(candidates, key=lambda runs: probe_loss(plan, runs))
                _drop_checkpoints(plan, candidates, chosen)
            for run in chosen:
                _advance(plan, run, plan.train_steps)
            finished += chosen
    return finished


def probe_loss(plan: Plan, runs: list[Run]) -> float:
    """Mean training loss of the last steps of a probe; infinite if it diverged."""
    found = []
    for run in runs:
        losses = [row["loss"] for row in plan.rows(run)[: plan.probe_steps]]
        found.append(np.mean(losses[-min(LAST_STEPS, plan.probe_steps // 2 or 1) :]))
    loss = float(np.mean(found))
    return loss if np.isfinite(loss) else float("inf")


def _advance(plan, run, until):
    """Runs until that step, if it is not there already."""
    if len(plan.rows(run)) >= until and (
        until < plan.train_steps or (plan.folder / run.name / "model.keras").is_file()
    ):
        return
    command = [
        *(sys.executable, "-m", plan.module),
        *plan.flags,
        f"--model={run.model}",
        f"--optimizer={run.optimizer}",
        f"--seed={run.seed}",
        f"--batch_size={plan.batch_size}",
        f"--train_steps={plan.train_steps}",
        f"--stop_after={until}",
        f"--model_dir={plan.folder / run.name}",
    ]
    if run.learning_rate is not None:
        command.append(f"--learning_rate={run.learning_rate!r}")
    logging.info("%s until step %d", run.name, until)
    status, terminated = _run_child(command)
    if terminated:
        raise Terminated(
            f"the run {run.name} was left at its last checkpoint, as SIGTERM asks"
        )
    if status:
        raise RuntimeError(
            f"the run {run.name} must end well; started again, the comparison goes on "
            f"from its last checkpoint. Received: exit status {status} of "
            + " ".join(command)
        )


def _run_child(command):
    """Runs a process; SIGTERM goes on to it, so that it saves, and is waited for.

    Returns:
        Its exit status, and whether SIGTERM came.
    """
    process, terminated = None, False

    def terminate(number, frame):
        del number, frame
        nonlocal terminated
        terminated = True
        if process is not None:
            process.terminate()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        process = subprocess.Popen(command)
        if terminated:
            process.terminate()  # It came in between.
        status = process.wait()
        return status, terminated
    except BaseException:
        if process is not None:
            process.terminate()
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_checkpoints(plan, candidates, chosen):
    """Frees the disk of what will not go on: hundreds of megabytes a run."""
    for runs in candidates:
        for run in runs if runs is not chosen else ():
            shutil.rmtree(plan.folder / run.name / "checkpoints", ignore_errors=True)


def write_curves(plan: Plan, runs: list[Run], path: pathlib.Path) -> None:
    """All curves as one CSV; `seconds` is the wall clock since the run's first step."""
    aside = path.with_name(f".{path.name}")
    with open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                *("model", "optimizer", "learning_rate", "seed", "step", "seconds"),
                *("loss", "accuracy", "weights_sha256"),
            ]
        )
        for run in runs:
            rate = "" if run.learning_rate is None else f"{run.learning_rate:.6g}"
            _, sha256 = plan.weights_of(run)
            for row, seconds in zip(plan.rows(run), wall_clock(plan, run), strict=True):
                writer.writerow(
                    [
                        *(run.model, run.optimizer, rate, run.seed, int(row["step"])),
                        *(f"{seconds:.2f}", f"{row['loss']:.6g}"),
                        *(f"{row['accuracy']:.6g}", sha256),
                    ]
                )
    os.replace(aside, path)


def wall_clock(plan: Plan, run: Run) -> np.ndarray:
    """Seconds after each step of a run, the time to compile included."""
    rates = np.array([row["images_per_second"] for row in plan.rows(run)])
    return np.cumsum(plan.batch_size / rates)
