r"""Compares optimizers on ImageNet, or on images drawn on the spot.

    python -m imagenet.benchmark --models=resnet_v2_50 --image_size=48 \
        --optimizers=hierarchical_rnn,rmsprop --train_steps=300 --output=comparison

Every optimizer meets the same batches from the same start. Baselines are tried at
several rates for some steps, and go on at the best; `HierarchicalRNN()` has none to
try. The report in `--output` has the curves against steps and wall clock (PNG, CSV),
where the time of a step goes, and the optimizer's share as the batch grows. Started
again with the same flags, it goes on where it was interrupted.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from imagenet import train
from imagenet.comparison import Plan, run_all
from imagenet.data import open_images
from imagenet.models import MODELS, checked_image_size
from imagenet.optimizers import choose
from imagenet.report import write_report
from imagenet.timing import time_steps
from learned_optimizer import load_weights

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["resnet_v2_50"], f"Networks: {', '.join(MODELS)}.")
flags.DEFINE_list(
    "optimizers", ["hierarchical_rnn", "rmsprop", "adam", "momentum"], "To compare."
)
flags.DEFINE_list("seeds", ["0"], "Of initial weights, order and augmentation.")
flags.DEFINE_list(
    "factors", ["0.25", "1", "4"], "Of a baseline's usual rate: the rates it tries."
)
flags.DEFINE_integer("probe_steps", 300, "Steps after which a rate is chosen.")
flags.DEFINE_list(
    "timing_batches", ["1", "4", "16", "64"], "Batch sizes whose steps are timed."
)
flags.DEFINE_string("output", "comparison", "Folder of the report and the runs.")
flags.DEFINE_string("module", "imagenet.train", "That trains.")
# What each run has of its own.
_OWN = {"model", "optimizer", "learning_rate", "seed", "batch_size", "train_steps"}
_OWN |= {"epochs", "model_dir", "stop_after"}


def main(arguments):
    """Runs the comparison and writes the report."""
    if len(arguments) > 1:
        raise app.UsageError(f"benchmark takes flags alone, received {arguments[1:]}")
    try:
        plan, images = _plan()
        runs = run_all(plan)
        text = _report(plan, runs, images)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"imagenet.benchmark: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{text}\nThe report: {plan.folder / 'report.md'}")


def _plan():
    for model in FLAGS.models:
        checked_image_size(model, FLAGS.image_size)
    if FLAGS.train_steps is None:
        raise ValueError("a comparison needs --train_steps. Received: none")
    # Made once, before runs are started that would all want to.
    images = open_images(train.data_settings(_settings(FLAGS.models[0], FLAGS.seed)))
    load_weights(FLAGS.weights)
    shared = [
        flag.serialize()
        for flag in FLAGS.flags_by_module_dict()[train.__name__]
        if flag.name not in _OWN and flag.value is not None
    ]
    plan = Plan(
        models=tuple(FLAGS.models),
        optimizers=tuple(FLAGS.optimizers),
        seeds=tuple(int(seed) for seed in FLAGS.seeds),
        factors=tuple(float(factor) for factor in FLAGS.factors),
        probe_steps=min(FLAGS.probe_steps, FLAGS.train_steps),
        train_steps=FLAGS.train_steps,
        batch_size=FLAGS.batch_size,
        steps_per_epoch=images.num_train_images / FLAGS.batch_size,
        flags=tuple(shared),
        folder=pathlib.Path(FLAGS.output),
        module=FLAGS.module,
    )
    plan.folder.mkdir(parents=True, exist_ok=True)
    return plan, images


def _settings(model, seed):
    FLAGS["model"].value = model
    FLAGS["seed"].value = seed
    FLAGS["model_dir"].value = FLAGS.output
    return train.settings_from_flags()


def _report(plan, runs, images):
    choices = {optimizer: _choice(plan, optimizer) for optimizer in plan.optimizers}
    data = (
        f"{FLAGS.dataset} images of {images.settings.image_size} px, "
        f"{images.num_classes} classes, {images.num_train_images} for training, "
        f"batches of {plan.batch_size}, {plan.train_steps} steps, label smoothing "
        f"{FLAGS.label_smoothing:g}."
    )
    return write_report(
        plan,
        runs,
        choices,
        _shares(plan, choices, images),
        load_weights(FLAGS.weights),
        "python -m imagenet.benchmark " + " ".join(sys.argv[1:]),
        data,
    )


def _choice(plan, optimizer):
    return choose(
        optimizer,
        batch_size=plan.batch_size,
        train_steps=plan.train_steps,
        steps_per_epoch=plan.steps_per_epoch,
        schedule=FLAGS.schedule,
        warmup_steps=FLAGS.warmup_steps,
        weight_decay=FLAGS.weight_decay,
        weights=FLAGS.weights,
    )


def _shares(plan, choices, images):
    """The parts of a step, measured now, one network and optimizer after the other."""
    sizes = [int(size) for size in FLAGS.timing_batches]
    shares = {}
    for model in plan.models if sizes else ():
        settings = _settings(model, plan.seeds[0])
        for optimizer, choice in choices.items():
            logging.info("timing %s with %s", model, optimizer)
            shares[model, optimizer] = time_steps(settings, choice, images, sizes)
    return shares


def run():
    """Entry point."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
