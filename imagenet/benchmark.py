r"""Compares optimizers on ImageNet, or on images drawn on the spot.

    python -m imagenet.benchmark --models=resnet_v2_50 --image_size=48 \
        --optimizers=hierarchical_rnn,rmsprop --train_steps=300 --output=comparison

Every optimizer meets the same batches from the same start. Baselines are tried at
several rates for some steps, and go on at the best; `HierarchicalRNN()` has none to
try. The report in `--output` has the curves against steps and wall clock (PNG, CSV),
where the time of a step goes, and the optimizer's share as the batch grows. Started
again with the same flags, it goes on where it was interrupted.
"""

import dataclasses
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from imagenet import train
from imagenet.comparison.comparison import Plan, Run, check_plan, run_all, settle_plan
from imagenet.comparison.report import write_report
from imagenet.input.data import open_images
from imagenet.models import MODELS, checked_image_size
from imagenet.optimizers import choose
from imagenet.run.step_times import checked_batch_sizes
from imagenet.run.termination import STATUS_TERMINATED, Terminated
from imagenet.run.timing import time_steps
from learned_optimizer.utils.backend import check_backend

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
# What each run has of its own; given to the comparison it would mean nothing.
_OWN = ("model", "optimizer", "learning_rate", "seed", "model_dir", "stop_after")
_OWN += ("epochs", "eval_only")
# What the comparison gives each of them.
_GIVEN = ("batch_size", "train_steps")


def main(arguments):
    """Runs the comparison and writes the report."""
    if len(arguments) > 1:
        raise app.UsageError(f"benchmark takes flags alone, received {arguments[1:]}")
    try:
        check_backend()
        plan, sizes = _checked()
        first = Run(plan.models[0], plan.optimizers[0], None, plan.seeds[0])
        # Made once, before runs are started that would all want to.
        images = open_images(train.data_settings(_settings(plan, first)))
        plan = dataclasses.replace(
            plan, steps_per_epoch=images.num_train_images / plan.batch_size
        )
        settle_plan(plan)
        runs = run_all(plan)
        text = _report(plan, runs, images, sizes)
    except Terminated as error:
        print(f"imagenet.benchmark: {error}", file=sys.stderr)
        sys.exit(STATUS_TERMINATED)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"imagenet.benchmark: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{text}\nThe report: {plan.folder / 'report.md'}")


def _checked():
    """The plan and the batch sizes to time, after all that can be wrong was looked at.

    The steps of an epoch are not known before the images are; no rule depends on them.
    """
    given = [f"--{name}" for name in _OWN if FLAGS[name].present]
    if given:
        raise ValueError(
            "the comparison gives each run its own network, optimizer, rate, seed and "
            "folder (--models, --optimizers, --factors, --seeds, --output), and trains "
            f"for --train_steps. Received: {', '.join(given)}"
        )
    for model in FLAGS.models:
        checked_image_size(model, FLAGS.image_size)
    if FLAGS.train_steps is None:
        raise ValueError("a comparison needs --train_steps. Received: none")
    sizes = checked_batch_sizes(FLAGS.timing_batches)
    shared = [
        flag.serialize()
        for flag in FLAGS.flags_by_module_dict()[train.__name__]
        if flag.name not in (*_OWN, *_GIVEN) and flag.value is not None
    ]
    plan = Plan(
        models=tuple(FLAGS.models),
        optimizers=tuple(FLAGS.optimizers),
        seeds=tuple(int(seed) for seed in FLAGS.seeds),
        factors=tuple(float(factor) for factor in FLAGS.factors),
        probe_steps=min(FLAGS.probe_steps, FLAGS.train_steps),
        train_steps=FLAGS.train_steps,
        batch_size=FLAGS.batch_size,
        steps_per_epoch=1.0,
        flags=tuple(shared),
        folder=pathlib.Path(FLAGS.output),
        module=FLAGS.module,
    )
    check_plan(plan)
    for model in plan.models:
        for optimizer in plan.optimizers:
            for run in sum(plan.candidates(model, optimizer), []):
                settings = _settings(plan, run)
                train.check_optimizer(settings)
                # One that has ended is not started again, and would not say so.
                settings.check(pathlib.Path(settings.model_dir))
    return plan, sizes


def _settings(plan, run):
    """The settings that a run's process will have."""
    FLAGS["model"].value = run.model
    FLAGS["optimizer"].value = run.optimizer
    FLAGS["learning_rate"].value = run.learning_rate
    FLAGS["seed"].value = run.seed
    FLAGS["model_dir"].value = str(plan.folder / run.name)
    return train.settings_from_flags()


def _report(plan, runs, images, sizes):
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
        _shares(plan, choices, images, sizes),
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


def _shares(plan, choices, images, sizes):
    """The parts of a step, measured now, one network and optimizer after the other."""
    shares = {}
    for model in plan.models if sizes else ():
        for optimizer, choice in choices.items():
            logging.info("timing %s with %s", model, optimizer)
            settings = _settings(plan, Run(model, optimizer, None, plan.seeds[0]))
            shares[model, optimizer] = time_steps(settings, choice, images, sizes)
    return shares


def run():
    """Entry point."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
