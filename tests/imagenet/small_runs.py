"""Small runs on drawn images, for tests."""

import numpy as np

from imagenet.input.data import open_images
from imagenet.run.config import RunConfig
from imagenet.run.devices import devices_of
from imagenet.run.training import Training
from learned_optimizer.utils.csv_log import read_csv
from tests.imagenet import tiny

# The network of these runs: its import puts it in the table of those there are.
assert tiny

SMALL = {
    "model": "tiny",
    "num_classes": 4,
    "num_images": 40,
    "num_validation_images": 10,
    "image_size": 32,
    "batch_size": 8,
    "train_steps": 6,
    "steps_per_loop": 2,
    "optimizer": "momentum",
}


def settings(data_dir, model_dir, **changes):
    folders = {"data_dir": data_dir, "model_dir": str(model_dir)}
    return RunConfig(**SMALL | folders | changes)


def train(data_dir, model_dir, until=None, **changes):
    run = settings(data_dir, model_dir, **changes)
    training = Training(run, devices_of(run), open_images(run))
    training.train(until)
    return training


def contents(folder):
    """The bytes of all files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in files}


def values(training):
    return [np.array(variable) for variable in training.model.trainable_variables]


def curve(folder):
    """The rows of `train.csv`, but for the speed."""
    rows = read_csv(folder / "train.csv")
    for row in rows:
        del row["images_per_second"]
    return rows
