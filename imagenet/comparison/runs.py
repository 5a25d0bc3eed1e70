"""Optimizers × networks × seeds, on the same data and from the same start.

Each run is a process of `imagenet.train`, so it goes on from its checkpoint when the
comparison was interrupted. A baseline is tried at several rates for some steps first,
each the beginning of the whole run; the rate with the lowest loss there goes on.
"""

import dataclasses
import itertools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from absl import logging

from imagenet.models import MODELS
from imagenet.optimizers import OPTIMIZERS, OptimizerSpec
from imagenet.run.config import SETTINGS_FILE, STATUS_TERMINATED, Terminated
from learned_optimizer.utils import run_folder
from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv, write_csv
from learned_optimizer.utils.flags import check_order, check_settings, setting
from learned_optimizer.utils.signals import on_sigterm

COMPARISON_FILE = "comparison.json"
# That trains.
MODULE = "imagenet.train"
# What the loss of a run is judged by, at any step.
LAST_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a comparison; a learning rate of None is the usual one."""

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
class ComparisonConfig:
    """What is compared; the help of each setting says what it is.

    Attributes:
        train_steps: Steps of a run.
        batch_size: Images a step.
        steps_per_epoch: Of the data.
        flags: Of `imagenet.train`, the same for all runs.
        folder: Where the runs are.

    Raises:
        ValueError: A number is out of its range or a name is unknown.
    """

    models: tuple[str, ...] = setting(("resnet_v2_50",), "Networks.", choices=MODELS)
    optimizers: tuple[str, ...] = setting(
        ("hierarchical_rnn", "rmsprop", "adam", "momentum"),
        "What is compared.",
        choices=OPTIMIZERS,
    )
    seeds: tuple[int, ...] = setting((0,), "Of initial weights, order, augmentation.")
    factors: tuple[float, ...] = setting(
        (0.25, 1.0, 4.0),
        "Of a baseline's usual rate: the rates that are tried.",
        above=0,
    )
    probe_steps: int = setting(300, "Steps after which a rate is chosen.", at_least=1)
    timing_batches: tuple[int, ...] = setting(
        (1, 4, 16, 64), "Batch sizes whose steps are timed.", at_least=1
    )
    _: dataclasses.KW_ONLY
    train_steps: int
    batch_size: int
    steps_per_epoch: float
    flags: tuple[str, ...]
    folder: pathlib.Path

    def __post_init__(self):
        check_settings(self)
        for name in ("models", "optimizers", "seeds", "factors"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty. Received: nothing")
        check_order(self, ("probe_steps", "train_steps"))

    def candidates(self, model: str, optimizer: str) -> list[list[Run]]:
        """For each rate that is tried, its runs: one a seed."""
        rates: list[float | None] = [None]
        if optimizer != "hierarchical_rnn" and self.factors != (1.0,):
            usual = OptimizerSpec(
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

    def verify(self) -> None:
        """Finds out whether the runs in the folder are of such a comparison.

        A run may be made longer, a comparison may not: its rates were chosen under
        schedules that end at its last step.

        Raises:
            ValueError: They are as long as another one has them.
        """
        path = self.folder / COMPARISON_FILE
        if path.is_file():
            run_folder.verify(path, {"train_steps": self.train_steps}, {})

    def write_or_verify(self) -> None:
        """Makes the folder that of the comparison, with the errors of `verify`."""
        self.verify()
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"train_steps": self.train_steps}) + "\n"
        atomic_write(self.folder / COMPARISON_FILE, content.encode())

    def weights_of(self, run: Run) -> tuple[str, str]:
        """Name and sha256 of the weights with which a run was made, empty for others.

        What their name stands for now may be others.
        """
        if run.optimizer != "hierarchical_rnn":
            return "", ""
        found = run_folder.read_identity(self.folder / run.name / SETTINGS_FILE)
        return found["weights"], found["weights_sha256"]


def run_all(config: ComparisonConfig) -> list[Run]:
    """Runs what has not been run yet.

    Returns:
        The runs that went to their end: of each network and optimizer those at the
        rate that was chosen, one a seed.

    Raises:
        RuntimeError: A run failed.
    """
    finished = []
    for model, optimizer in itertools.product(config.models, config.optimizers):
        candidates = config.candidates(model, optimizer)
        chosen = candidates[0]
        if len(candidates) > 1:
            for run in itertools.chain(*candidates):
                _advance(config, run, config.probe_steps)
            chosen = min(candidates, key=lambda runs: probe_loss(config, runs))
            for run in itertools.chain(*candidates):
                if run not in chosen:
                    # Hundreds of megabytes of what will not go on.
                    checkpoints = config.folder / run.name / "checkpoints"
                    shutil.rmtree(checkpoints, ignore_errors=True)
        for run in chosen:
            _advance(config, run, config.train_steps)
        finished += chosen
    return finished


def probe_loss(config: ComparisonConfig, runs: list[Run]) -> float:
    """Mean training loss of the last steps of a probe; infinite if it diverged."""
    found = []
    for run in runs:
        losses = [row["loss"] for row in config.rows(run)[: config.probe_steps]]
        found.append(np.mean(losses[-min(LAST_STEPS, config.probe_steps // 2 or 1) :]))
    loss = float(np.mean(found))
    return loss if np.isfinite(loss) else float("inf")


def _advance(config, run, until):
    """Runs until that step, if it is not there already."""
    if len(config.rows(run)) >= until and (
        until < config.train_steps
        or (config.folder / run.name / "model.keras").is_file()
    ):
        return
    command = [
        *(sys.executable, "-m", MODULE),
        *config.flags,
        f"--model={run.model}",
        f"--optimizer={run.optimizer}",
        f"--seed={run.seed}",
        f"--batch_size={config.batch_size}",
        f"--train_steps={config.train_steps}",
        f"--stop_after={until}",
        f"--model_dir={config.folder / run.name}",
    ]
    if run.learning_rate is not None:
        command.append(f"--learning_rate={run.learning_rate!r}")
    logging.info("%s until step %d", run.name, until)
    status, terminated = _run_child(command)
    if terminated or status == STATUS_TERMINATED:
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
    """The exit status, and whether SIGTERM came: the child saves, and is waited for."""
    process, terminated = None, False

    def terminate():
        nonlocal terminated
        terminated = True
        if process is not None:
            process.terminate()

    with on_sigterm(terminate):
        try:
            process = subprocess.Popen(command)
            if terminated:
                process.terminate()  # It came in between.
            return process.wait(), terminated
        finally:
            if process is not None:
                process.terminate()
                process.wait()


def write_curves(config: ComparisonConfig, runs: list[Run], path: pathlib.Path) -> None:
    """All curves as one CSV; `seconds` is the wall clock since the run's first step."""
    columns = ("model", "optimizer", "learning_rate", "seed", "step", "seconds")
    rows = [
        (
            *(run.model, run.optimizer, run.learning_rate, run.seed, int(row["step"])),
            *(seconds, row["loss"], row["accuracy"], config.weights_of(run)[1]),
        )
        for run in runs
        for row, seconds in zip(config.rows(run), wall_clock(config, run), strict=True)
    ]
    write_csv(path, (*columns, "loss", "accuracy", "weights_sha256"), rows)


def wall_clock(config: ComparisonConfig, run: Run) -> np.ndarray:
    """Seconds after each step of a run, the time to compile included."""
    rates = np.array([row["images_per_second"] for row in config.rows(run)])
    return np.cumsum(config.batch_size / rates)
