r"""Trains Inception V3 or ResNet V2 on ImageNet, or on images drawn on the spot.

    python -m imagenet.train --model=resnet_v2_50 --dataset=imagenet2012 \
        --data_dir=/data/tensorflow_datasets --model_dir=/runs/resnet --epochs=90 \
        --batch_size=256 --strategy=mirrored

Started again with the same flags, a run goes on from its last checkpoint. SIGTERM
makes it save and leave with status 75, after which a scheduler should start it again.
"""

import dataclasses
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags, logging

from imagenet.input.data import DataSettings, open_images
from imagenet.models import MODELS, PRECISIONS, model_kind
from imagenet.optimizers import OPTIMIZERS, SCHEDULES
from imagenet.run.checkpoints import newest_checkpoint
from imagenet.run.devices import devices_of
from imagenet.run.settings import STRATEGIES, TrainingSettings
from imagenet.run.termination import STATUS_TERMINATED, Terminated
from imagenet.run.training import Training, check_start, settle_optimizer
from learned_optimizer.utils.backend import check_backend

# Of ImageNet 2012, in all.
_IMAGENET_IMAGES = 1_281_167
STATUS_LOST = 74  # EX_IOERR: another process of the run is gone.

FLAGS = flags.FLAGS
_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(TrainingSettings)
}
_CHOICES = {
    "model": (MODELS, "The network."),
    "dataset": (("imagenet2012", "generated"), "The images."),
    "optimizer": (OPTIMIZERS, "The optimizer."),
    "schedule": (SCHEDULES, "Of the learning rate."),
    "strategy": (STRATEGIES, "How steps are distributed."),
    "precision": (PRECISIONS, "Policy of the network's layers."),
}
_STRINGS = {
    "data_dir": "Folder of the data, as TFDS has it; made there if it is missing.",
    "model_dir": "Folder of the run: checkpoints, CSVs, TensorBoard, the model.",
    "weights": "Of the learned optimizer: a name or a path.",
}
_INTEGERS = {
    "image_size": "Height and width in pixels; by default that of the model.",
    "num_classes": "Classes of the generated images.",
    "num_images": "Training images of the generated data.",
    "num_validation_images": "Validation images of the generated data.",
    "batch_size": "Images a step, over all devices.",
    "accumulation_steps": "Parts in which a device takes its share of the batch.",
    "train_steps": "Steps in all; or give --epochs.",
    "steps_per_loop": "Steps between two looks at logs and signals.",
    "eval_every": "Steps between evaluations; 0: at the end alone.",
    "eval_batch_size": "By default as many as training takes at a time.",
    "eval_images": "Evaluate on the first so many, in whole batches.",
    "checkpoint_every": "Steps between checkpoints.",
    "keep_checkpoints": "How many checkpoints stay.",
    "warmup_steps": "In which the rate rises; by default the usual number.",
    "replicas": "Devices of mirrored; by default all GPUs, or logical CPUs.",
    "input_shards": "Parts that are read in an order each; by default one a worker.",
    "seed": "Of initial weights, order and augmentation.",
}
_FLOATS = {
    "epochs": "Passes over the training images; or give --train_steps.",
    "learning_rate": "By default the usual one of the optimizer.",
    "weight_decay": "Of kernels; by default the usual one of the optimizer.",
    "min_crop_area": "Least part of an image that a training crop covers.",
    "label_smoothing": "Share of a label that goes to all classes alike.",
}
_BOOLEANS = {
    "colour_distortion": "Whether training distorts colours.",
    "synchronized_batch_normalization": "Batch statistics over all replicas.",
    "jit_compile": "Whether XLA compiles forward and backward pass.",
}
for _name, (_values, _help) in _CHOICES.items():
    flags.DEFINE_enum(_name, _DEFAULTS[_name], list(_values), _help)
for _define, _flags in (
    (flags.DEFINE_string, _STRINGS),
    (flags.DEFINE_integer, _INTEGERS),
    (flags.DEFINE_float, _FLOATS),
    (flags.DEFINE_boolean, _BOOLEANS),
):
    for _name, _help in _flags.items():
        _define(_name, _DEFAULTS[_name], _help)
flags.DEFINE_boolean("eval_only", False, "Only evaluate the newest checkpoint.")
flags.DEFINE_integer(
    "stop_after", None, "Leave at this step, to go on another time.", lower_bound=1
)
flags.DEFINE_integer(
    "threads", None, "Threads of an operation; by default all cores.", lower_bound=1
)


def settings_from_flags() -> TrainingSettings:
    """The settings that the flags give.

    Raises:
        ValueError: They break a rule.
    """
    values = {name: FLAGS[name].value for name in _DEFAULTS}
    if FLAGS.eval_only and values["train_steps"] is None and values["epochs"] is None:
        # How long the run was to be plays no part in an evaluation.
        values["epochs"] = 90.0
    return TrainingSettings(**values)


def data_settings(settings: TrainingSettings) -> DataSettings:
    """The part of them that the data is made from."""
    generated = {
        name: getattr(settings, name)
        for name in ("num_classes", "num_images", "num_validation_images")
        if getattr(settings, name) is not None
    }
    return DataSettings(
        dataset=settings.dataset,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        scaling=model_kind(settings.model).scaling,
        seed=settings.seed,
        min_crop_area=settings.min_crop_area,
        colour_distortion=settings.colour_distortion,
        **generated,
    )


def main(arguments):
    """Trains, or only evaluates."""
    if len(arguments) > 1:
        raise app.UsageError(f"train takes flags alone, received {arguments[1:]}")
    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    try:
        check_backend()
        _check_threads()
        settings = settings_from_flags()
        data = data_settings(settings)
        check_optimizer(settings)
        if FLAGS.eval_only:
            _check_evaluation(settings)
        # Waits for the other processes, if there are any.
        devices = devices_of(settings)
        check_start(settings, devices)
        # May take hours, where they are to be prepared.
        training = Training(settings, devices, open_images(data))
        if FLAGS.eval_only:
            _evaluate_only(training)
            return
        training.train(FLAGS.stop_after)
    except (ValueError, OSError) as error:
        _leave(str(error), 1)
    except Terminated as error:
        _leave(str(error), STATUS_TERMINATED)
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
    ) as error:
        _leave(
            "another process of the run is gone; started again, all with the same "
            f"flags, the run goes on from its last checkpoint ({_first_line(error)})",
            STATUS_LOST,
        )
    except tf.errors.OpError as error:
        # A full disk while TensorBoard's file is written, a damaged TFRecord.
        _leave(f"{type(error).__name__}: {_first_line(error)}", 1)


def _check_threads():
    """Refuses what oneDNN writes beyond its memory with, see `imagenet`."""
    one_dnn = os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"
    if FLAGS.threads == 1 and one_dnn:
        raise ValueError(
            "one thread must be asked for by TF_NUM_INTRAOP_THREADS=1 in the "
            "environment, before TensorFlow sets up oneDNN, which then is left off. "
            "Received: --threads=1"
        )


def check_optimizer(settings: TrainingSettings) -> None:
    """Finds out whether there is such an optimizer, before the images are opened.

    Raises:
        ValueError: A rule of `imagenet.optimizers.choose` is broken, or the weights of
            the learned optimizer are unknown or damaged.
    """
    count = _IMAGENET_IMAGES
    if settings.dataset == "generated":
        count = data_settings(settings).num_images
    settle_optimizer(settings, count)
    settings.identity()


def _first_line(error):
    return str(error).strip().split("\n")[0][:300]


def _check_evaluation(settings):
    folder = pathlib.Path(settings.model_dir)
    if newest_checkpoint(folder / "checkpoints") is None:
        raise ValueError(
            f"--eval_only needs a checkpoint in model_dir. Received: none in {folder}"
        )


def _evaluate_only(training):
    row = training.evaluate()
    print(", ".join(f"{name} {value:.6g}" for name, value in row.items()))


def _leave(message, status):
    """Ends the process now: threads of lost processes may hang on its exit."""
    print(f"imagenet.train: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    logging.flush()
    os._exit(status)


def run():
    """Entry point."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
