r"""Measures and compares on a GPU that has JAX and no TensorFlow.

    python -m imagenet.gpu --stage=step
    python -m imagenet.gpu --stage=resnet
    python -m imagenet.gpu --stage=inception

What the stages are stands in docs/imagenet.md. A call takes `--minutes` at most and
writes its CSVs as it goes. It ends with status 75 where something is left to do: the
same command goes on. `report.md` is written anew by each call.
"""

import csv
import dataclasses
import functools
import itertools
import os
import pathlib
import sys
import time

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from absl import app, logging

from imagenet.accelerator.images import DeviceImages
from imagenet.accelerator.report import read_rows, write_report
from imagenet.accelerator.step_cost import copy_bandwidth, step_cost
from imagenet.accelerator.training import OutOfTime, TrainingStep, train
from imagenet.comparison.runs import Run
from imagenet.models import MODELS, build_model, checked_image_size
from imagenet.optimizers import OPTIMIZERS, OptimizerSpec
from imagenet.run.config import SETTINGS_FILE, STATUS_TERMINATED, weights_identity
from learned_optimizer import HierarchicalRNN
from learned_optimizer.utils import run_folder
from learned_optimizer.utils.flags import (
    check_settings,
    define_flags,
    flag_settings,
    setting,
)
from learned_optimizer.utils.measuring import median_seconds

# What each stage trains.
STAGES = {"step": "resnet_v2_50", "resnet": "resnet_v2_50", "inception": "inception_v3"}
# Of NAdamW's usual rate.
FACTORS = (1.0, 3.0)
TIMED_BATCH = 256


@dataclasses.dataclass(frozen=True)
class GpuConfig:
    """What is measured; the help of each field says what it is.

    Raises:
        ValueError: A setting is out of its range.
    """

    stage: str = setting("step", "What is done.", choices=STAGES)
    output: str = setting("imagenet/results/gpu", "Folder of the CSVs and the report.")
    minutes: float = setting(8.0, "What a call may take.", above=0)
    model: str | None = setting(
        None, "The network; by default that of the stage.", choices=MODELS
    )
    image_size: int | None = setting(None, "In pixels; by default the network's.")
    batch_size: int = setting(128, "Images a step of training.", at_least=1)
    train_steps: int = setting(1000, "Steps of a run.", at_least=1)
    num_classes: int = setting(1000, "Classes that are drawn.", at_least=2)
    num_images: int = setting(20_000, "Training images, on the device.", at_least=1)
    num_validation_images: int = setting(2_000, "Validation images.", at_least=1)
    precision: str = setting(
        "mixed_bfloat16",
        "Policy of the network's layers.",
        choices=("float32", "mixed_bfloat16"),
    )
    weights: str = setting("default", "Of the learned optimizer: a name or a path.")
    seed: int = setting(0, "Of initial weights, images and order.", at_least=0)

    def __post_init__(self):
        check_settings(self)
        size = checked_image_size(self.network, self.image_size)
        object.__setattr__(self, "image_size", size)

    @property
    def network(self) -> str:
        """The network that is trained."""
        return self.model or STAGES[self.stage]

    def identity(self) -> dict:
        """What all calls of a comparison must have in common."""
        names = {field.name for field in dataclasses.fields(self)}
        names -= {"stage", "output", "minutes", "model", "weights"}
        return {
            "program": "imagenet.gpu",
            "device": jax.devices()[0].device_kind,
            "model": self.network,
            **{name: getattr(self, name) for name in sorted(names)},
            **weights_identity(self.weights),
        }


def measure_steps(config: GpuConfig, deadline: float) -> None:
    """The stage `step`: a row of `step.csv` each, and `training_step.csv`.

    Raises:
        OutOfTime: The deadline came.
        ValueError: The CSVs are of other settings.
    """
    folder = pathlib.Path(config.output) / "step"
    run_folder.write_or_verify(folder / SETTINGS_FILE, config.identity(), {})
    makers = {
        "hierarchical_rnn": lambda: HierarchicalRNN(
            weights=config.weights, total_steps=config.train_steps
        ),
        "adam": keras.optimizers.Adam,
    }
    batch_size = TIMED_BATCH if config.model is None else config.batch_size
    bandwidth = functools.cache(copy_bandwidth)

    def of_step(network, name):
        return step_cost(network, name, makers[name](), bandwidth())

    def of_training(network, name):
        milliseconds = _training_milliseconds(config, makers[name](), batch_size)
        row = {"network": network, "optimizer": name, "batch_size": batch_size}
        return {**row, "milliseconds": milliseconds}

    networks = [config.network] if config.model else ["resnet_v2_50", "vit_b16"]
    for file, of_networks, measure in (
        ("step.csv", networks, of_step),
        ("training_step.csv", [config.network], of_training),
    ):
        done = {(r["network"], r["optimizer"]) for r in read_rows(folder / file)}
        for case in itertools.product(of_networks, makers):
            if case not in done:
                _check_time(deadline, f"{file}: {' on '.join(reversed(case))}")
                _append_row(folder / file, measure(*case))


def _append_row(path, row):
    """Adds a row, which is on disk then; all rows have the same columns."""
    is_new = not path.is_file()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    logging.info("%s", row)


def _training_milliseconds(config, optimizer, batch_size):
    size = config.image_size
    random = np.random.default_rng(0)
    images = DeviceImages(
        random.integers(0, 256, (batch_size, size, size, 3), np.uint8),
        random.integers(0, config.num_classes, batch_size, np.int32),
    )
    model = build_model(
        config.network, config.num_classes, size, config.precision, seed=config.seed
    )
    optimizer.build(model.trainable_variables)
    step, key = TrainingStep(model, optimizer), jax.random.key(0)
    rows = np.arange(batch_size)
    return 1e3 * median_seconds(
        lambda: jax.block_until_ready(step(images, rows, key)), 10
    )


def compare(config: GpuConfig, deadline: float) -> None:
    """The stages `resnet` and `inception`: one run after the other.

    Raises:
        OutOfTime: The deadline came.
        ValueError: The runs are of other settings.
    """
    folder = pathlib.Path(config.output) / config.stage
    run_folder.write_or_verify(folder / SETTINGS_FILE, config.identity(), {})
    runs = [Run(config.network, "hierarchical_rnn", None, config.seed)]
    usual = OPTIMIZERS["nadamw"].learning_rate
    runs += [Run(config.network, "nadamw", f * usual, config.seed) for f in FACTORS]
    runs = [run for run in runs if not (folder / run.name / "eval.csv").is_file()]
    if not runs:
        return
    seconds, size, classes = 0.0, config.image_size, config.num_classes
    rest = (size, classes, config.seed)
    images = DeviceImages.drawn(0, config.num_images, *rest)
    count = config.num_validation_images
    validation = DeviceImages.drawn(config.num_images, count, *rest)
    for run in runs:
        _check_time(deadline - seconds, f"the run {run.name}")
        began = time.monotonic()
        spec = OptimizerSpec(
            run.optimizer,
            batch_size=config.batch_size,
            train_steps=config.train_steps,
            steps_per_epoch=config.num_images / config.batch_size,
            learning_rate=run.learning_rate,
            weights=config.weights,
        )
        logging.info("%s", spec.describe())
        model = build_model(run.model, classes, size, config.precision, seed=run.seed)
        optimizer = spec.make(model)
        if spec.is_learned:
            optimizer.total_steps = config.train_steps
        train(
            TrainingStep(model, optimizer),
            images,
            validation,
            folder / run.name,
            batch_size=config.batch_size,
            train_steps=config.train_steps,
            seed=config.seed,
            rate=spec.rate_at,
            deadline=deadline,
        )
        # As long as the next one will take.
        seconds = time.monotonic() - began


def _check_time(deadline, what):
    if time.monotonic() > deadline:
        raise OutOfTime(f"{what} is left to do")


def main(arguments):
    """Does what is left of a stage, as far as the time goes."""
    if len(arguments) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {arguments[1:]}")
    began, left = time.monotonic(), None
    try:
        config = GpuConfig(**flag_settings(GpuConfig))
        run_stage = measure_steps if config.stage == "step" else compare
        try:
            run_stage(config, began + 60 * config.minutes)
        except OutOfTime as error:
            left = error
        print(write_report(pathlib.Path(config.output)))
    except (ValueError, OSError) as error:
        print(f"imagenet.gpu: {error}", file=sys.stderr)
        sys.exit(1)
    if left:
        print(f"imagenet.gpu: the same command goes on: {left}", file=sys.stderr)
        sys.exit(STATUS_TERMINATED)


def run():
    """Entry point."""
    define_flags(GpuConfig)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
