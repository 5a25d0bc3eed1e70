"""Tiny runs of Model Garden's `resnet_imagenet`, for its tests.

Imported only where the package `official` is installed. Every batch is the whole
data set, unshuffled and unaugmented, so that a run has one course and can be resumed
exactly.
"""

import dataclasses
import io

import numpy as np
import tensorflow as tf
from official.core import exp_factory, task_factory, train_lib
from official.vision.configs import image_classification  # noqa: F401
from official.vision.tasks import image_classification as _task  # noqa: F401
from PIL import Image

IMAGES = 32
CLASSES = 4
IMAGE_SIZE = 32
CHECKPOINT_EVERY = 4


def write_tfrecords(folder):
    """Noise with a bright bar whose place and colour tell the class."""
    generator = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(folder / "train-0")) as writer:
        for index in range(IMAGES):
            label = index % CLASSES
            pixels = generator.normal(128, 40, (IMAGE_SIZE, IMAGE_SIZE, 3)).clip(0, 255)
            pixels[8 * label : 8 * label + 8, :, label % 3] = 255
            jpeg = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(jpeg, "JPEG")
            features = {
                "image/encoded": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[jpeg.getvalue()])
                ),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[label])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def tiny_overrides(data_folder, train_steps):
    """What makes `resnet_imagenet` tiny; the optimizer is left as it is."""
    data = {
        "input_path": f"{data_folder}/train*",
        "global_batch_size": IMAGES,
        "shuffle_buffer_size": 1,
        "cycle_length": 1,
        "aug_rand_hflip": False,
        "aug_crop": False,
    }
    model = {
        "num_classes": CLASSES,
        "input_size": [IMAGE_SIZE, IMAGE_SIZE, 3],
        "backbone": {"resnet": {"model_id": 10, "depth_multiplier": 0.25}},
        # Statistics of the whole batch, whatever the number of replicas, that keep
        # pace with a short run.
        "norm_activation": {"use_sync_bn": True, "norm_momentum": 0.5},
    }
    return {
        "runtime": {"enable_xla": False},
        "task": {"model": model, "train_data": data, "validation_data": dict(data)},
        "trainer": {
            "train_steps": train_steps,
            "steps_per_loop": 1,
            "summary_interval": CHECKPOINT_EVERY,
            "checkpoint_interval": CHECKPOINT_EVERY,
            "validation_steps": 1,
            "validation_interval": CHECKPOINT_EVERY,
        },
    }


def optimizer_overrides(ema=None, **arguments):
    return {
        "optimizer": {"type": "hierarchical_rnn", "hierarchical_rnn": arguments},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 1.0}},
        "warmup": {"type": None},
        "ema": ema,
    }


@dataclasses.dataclass
class Run:
    """A runner and what it reported: the training loss of each step."""

    runner: train_lib.OrbitExperimentRunner
    losses: list

    @classmethod
    def make(cls, strategy, data_folder, model_dir, precision=None, ema=None):
        """Restores the last checkpoint of `model_dir`, if there is one."""
        experiment = exp_factory.get_exp_config("resnet_imagenet")
        experiment.override(tiny_overrides(data_folder, train_steps=0))
        experiment.override(
            {
                "runtime": {"mixed_precision_dtype": precision},
                "trainer": {
                    "optimizer_config": optimizer_overrides(
                        ema, initial_learning_rate=1e-3
                    )
                },
            }
        )
        with strategy.scope():
            task = task_factory.get_task(experiment.task, logging_dir=str(model_dir))
        losses = []
        runner = train_lib.OrbitExperimentRunner(
            distribution_strategy=strategy,
            task=task,
            mode="train_and_eval",
            params=experiment,
            model_dir=str(model_dir),
            train_actions=[lambda logs: losses.append(float(logs["training_loss"]))],
        )
        return cls(runner, losses)

    def train(self, steps):
        with self.runner.strategy.scope():
            self.runner.controller.train(steps=steps)

    def evaluate(self):
        with self.runner.strategy.scope():
            return self.runner.controller.evaluate(steps=1)

    @property
    def global_step(self):
        return int(self.runner.trainer.global_step.numpy())

    @property
    def iterations(self):
        return int(self.runner.trainer.optimizer.iterations.numpy())
