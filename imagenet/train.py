r"""Trains Inception V3 or ResNet V2 on ImageNet, or on images drawn on the spot.

    python -m imagenet.train --model=resnet_v2_50 --dataset=imagenet2012 \
        --data_dir=/data/tensorflow_datasets --model_dir=/runs/resnet --epochs=90 \
        --batch_size=256 --strategy=mirrored

Started again with the same flags, a run goes on from its last checkpoint. SIGTERM
makes it save and leave with status 75, after which a scheduler should start it again.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags, logging

from imagenet.input.config import GENERATED
from imagenet.input.data import open_images
from imagenet.run.checkpoints import first_line, newest_checkpoint
from imagenet.run.config import STATUS_TERMINATED, RunConfig, Terminated
from imagenet.run.devices import devices_of
from imagenet.run.training import Training, check_start, resolve_optimizer
from learned_optimizer import load_weights
from learned_optimizer.keras_step.arguments import checked_total_steps
from learned_optimizer.utils.backend import check_backend
from learned_optimizer.utils.flags import define_flags, flag_settings

# Of ImageNet 2012, in all.
_IMAGENET_IMAGES = 1_281_167
STATUS_LOST = 74  # EX_IOERR: another process of the run is gone.

FLAGS = flags.FLAGS
define_flags(RunConfig)
flags.DEFINE_boolean("eval_only", False, "Only evaluate the newest checkpoint.")
flags.DEFINE_integer(
    "stop_after", None, "Leave at this step, to go on another time.", lower_bound=1
)
flags.DEFINE_integer(
    "threads", None, "Threads of an operation; by default all cores.", lower_bound=1
)


def config_from_flags() -> RunConfig:
    """The settings that the flags give, checked."""
    values = flag_settings(RunConfig)
    if FLAGS.eval_only and values["train_steps"] is None and values["epochs"] is None:
        # How long the run was to be plays no part in an evaluation.
        values["epochs"] = 90.0
    return RunConfig(**values)


def main(arguments):
    """Trains, or only evaluates."""
    if len(arguments) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {arguments[1:]}")
    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    try:
        check_backend()
        if FLAGS.threads == 1 and os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1":
            # What oneDNN writes beyond its memory with, see `imagenet`.
            raise ValueError(
                "one thread must be asked for by TF_NUM_INTRAOP_THREADS=1 in the "
                "environment, before TensorFlow sets up oneDNN, which then is left "
                "off. Received: --threads=1"
            )
        config = config_from_flags()
        check_optimizer(config)
        folder = pathlib.Path(config.model_dir) / "checkpoints"
        if FLAGS.eval_only and newest_checkpoint(folder) is None:
            raise ValueError(
                f"--eval_only must find a checkpoint. Received: none in {folder}"
            )
        # Waits for the other processes, if there are any.
        devices = devices_of(config)
        check_start(config, devices)
        # May take hours, where they are to be prepared.
        training = Training(config, devices, open_images(config))
        if FLAGS.eval_only:
            row = training.evaluate()
            print(", ".join(f"{name} {value:.6g}" for name, value in row.items()))
        else:
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
            f"flags, the run goes on from its last checkpoint ({first_line(error)})",
            STATUS_LOST,
        )
    except tf.errors.OpError as error:
        # A full disk while TensorBoard's file is written, a damaged TFRecord.
        _leave(f"{type(error).__name__}: {first_line(error)}", 1)


def check_optimizer(config: RunConfig) -> None:
    """Finds out whether there is such an optimizer, before the images are opened.

    Raises:
        ValueError: A rule of `imagenet.optimizers.OptimizerSpec` is broken, or the
            weights of the learned optimizer are unknown or damaged, or have no nominal
            rate though `horizon` asks for it.
    """
    # Of other sets the number is known once they are open, and looked at again then.
    count = _IMAGENET_IMAGES
    if config.dataset == GENERATED:
        count = config.generated().num_images
    resolve_optimizer(config, count)
    config.identity()
    if config.horizon and config.optimizer == "hierarchical_rnn":
        checked_total_steps(1, load_weights(config.weights).config)


def _leave(message, status):
    """Ends the process now: threads of lost processes may hang on its exit."""
    print(f"imagenet.train: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    logging.flush()
    os._exit(status)


def set_up_logging() -> None:
    """Shows what a run says, but not what TensorFlow says of each checkpoint."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_logger().addFilter(
        lambda record: not str(record.msg).startswith("Sharding callback duration")
    )


def run():
    """Entry point."""
    set_up_logging()
    app.run(main)


if __name__ == "__main__":
    run()
