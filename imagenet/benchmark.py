r"""Compares optimizers on ImageNet, or on images drawn on the spot.

    python -m imagenet.benchmark --models=resnet_v2_50 --image_size=48 \
        --optimizers=hierarchical_rnn,rmsprop --train_steps=300 --output=comparison

Every optimizer meets the same batches from the same start. Baselines are tried at
several rates for some steps, and go on at the best; `HierarchicalRNN()` has none to
try. The report in `--output` has the curves against steps and wall clock (PNG, CSV),
and where the time of a step goes as the batch grows. Started again with the same
flags, it goes on where it was interrupted.
"""

import dataclasses
import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from imagenet import train
from imagenet.comparison.report import write_report
from imagenet.comparison.runs import ComparisonConfig, Run, run_all
from imagenet.input.data import open_images
from imagenet.models import checked_image_size
from imagenet.run.config import STATUS_TERMINATED, Terminated
from imagenet.run.timing import time_steps
from imagenet.run.training import resolve_optimizer
from learned_optimizer.utils.backend import check_backend
from learned_optimizer.utils.flags import define_flags, flag_settings

FLAGS = flags.FLAGS
define_flags(ComparisonConfig)
flags.DEFINE_string("output", "comparison", "Folder of the report and the runs.")
# Settings of a single run; given to the comparison they would mean nothing.
_OWN = ("model", "optimizer", "learning_rate", "seed", "model_dir", "stop_after")
_OWN += ("epochs", "eval_only")
# What the comparison gives each of them.
_GIVEN = ("batch_size", "train_steps")


def main(arguments):
    """Runs the comparison and writes the report."""
    if len(arguments) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {arguments[1:]}")
    try:
        check_backend()
        comparison = _checked()
        # Made once, before runs are started that would all want to.
        images = open_images(_first(comparison))
        comparison = dataclasses.replace(
            comparison, steps_per_epoch=images.num_train_images / comparison.batch_size
        )
        comparison.write_or_verify()
        runs = run_all(comparison)
        text = _report(comparison, runs, images)
    except Terminated as error:
        print(f"imagenet.benchmark: {error}", file=sys.stderr)
        sys.exit(STATUS_TERMINATED)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"imagenet.benchmark: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{text}\nThe report: {comparison.folder / 'report.md'}")


def _checked():
    """The comparison, after all was checked that can be.

    The steps of an epoch are not known before the images are; no rule depends on them.
    """
    given = [f"--{name}" for name in _OWN if FLAGS[name].present]
    if given:
        raise ValueError(
            "Flags must be those of all runs: each has its own network, optimizer, "
            "rate, seed and folder (--models, --optimizers, --factors, --seeds, "
            f"--output), and trains for --train_steps. Received: {', '.join(given)}"
        )
    for model in FLAGS.models:
        checked_image_size(model, FLAGS.image_size)
    if FLAGS.train_steps is None:
        raise ValueError("--train_steps must be given. Received: none")
    shared = [
        flag.serialize()
        for flag in FLAGS.flags_by_module_dict()[train.__name__]
        if flag.name not in (*_OWN, *_GIVEN) and flag.value is not None
    ]
    values = flag_settings(ComparisonConfig)
    values["probe_steps"] = min(values["probe_steps"], FLAGS.train_steps)
    comparison = ComparisonConfig(
        **values,
        train_steps=FLAGS.train_steps,
        batch_size=FLAGS.batch_size,
        steps_per_epoch=1.0,
        flags=tuple(shared),
        folder=pathlib.Path(FLAGS.output),
    )
    comparison.verify()
    for case in itertools.product(comparison.models, comparison.optimizers):
        for run in itertools.chain(*comparison.candidates(*case)):
            config = _config_of(comparison, run)
            train.check_optimizer(config)
            # One that has ended is not started again, and would not say so.
            config.verify(pathlib.Path(config.model_dir))
    return comparison


def _config_of(comparison, run):
    """The settings that a run's process will have."""
    for name, value in vars(run).items():
        FLAGS[name].value = value
    FLAGS["model_dir"].value = str(comparison.folder / run.name)
    return train.config_from_flags()


def _first(comparison, **changes):
    """The settings of one of the runs, each baseline at its usual rate."""
    first = Run(
        comparison.models[0], comparison.optimizers[0], None, comparison.seeds[0]
    )
    return _config_of(comparison, dataclasses.replace(first, **changes))


def _report(comparison, runs, images):
    specs = {
        optimizer: resolve_optimizer(
            _first(comparison, optimizer=optimizer), images.num_train_images
        )
        for optimizer in comparison.optimizers
    }
    shares = {}
    for model in comparison.models if comparison.timing_batches else ():
        for optimizer, spec in specs.items():
            logging.info("timing %s with %s", model, optimizer)
            config = _first(comparison, model=model, optimizer=optimizer)
            shares[model, optimizer] = time_steps(
                config, spec, images, comparison.timing_batches
            )
    data = (
        f"{FLAGS.dataset} images of {images.config.image_size} px, "
        f"{images.num_classes} classes, {images.num_train_images} for training, "
        f"batches of {comparison.batch_size}, {comparison.train_steps} steps, label "
        f"smoothing {FLAGS.label_smoothing:g}."
    )
    command = "python -m imagenet.benchmark " + " ".join(sys.argv[1:])
    return write_report(comparison, runs, specs, shares, command, data)


def run():
    """Entry point."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
