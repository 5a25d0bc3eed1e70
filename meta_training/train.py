r"""Meta-trains an optimizer.

    python -m meta_training.train --preset=default --train_dir=/tmp/runs/a \
        --init_weights=bootstrap-v1 --outer_steps=2000

Started again with the same flags, a run goes on from its last checkpoint.
"""

import dataclasses

from absl import app, flags, logging

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.backend import check_backend
from meta_training import estimators
from meta_training.distribution import STRATEGIES, distribution
from meta_training.inner.trajectories import TrajectoryOptions
from meta_training.inner.windows import UnrollOptions
from meta_training.optimizers import list_optimizers, nominal_rate_of
from meta_training.outer import meta_optimizers
from meta_training.outer.meta_objectives import list_meta_objectives
from meta_training.outer.modules import MODULES, import_modules
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import TrainingConfig, preset
from meta_training.tasks import list_task_sets

FLAGS = flags.FLAGS
flags.DEFINE_string("train_dir", None, "Folder of the run.", required=True)
flags.DEFINE_enum("preset", "default", ["released", "default"], "Where settings start.")
flags.DEFINE_enum("strategy", "one_device", STRATEGIES, "How work is distributed.")
flags.DEFINE_integer("replicas", None, "Devices of mirrored; by default all.")
flags.DEFINE_boolean("validate", True, "Whether held-out networks choose a checkpoint.")

# Flags without a value leave a setting as the preset has it.
flags.DEFINE_list("modules", [], MODULES)
flags.DEFINE_string(
    "optimizer", None, "What is trained: {}.".format(", ".join(list_optimizers()))
)
flags.DEFINE_string(
    "task_set", None, "Set of tasks: {}.".format(", ".join(list_task_sets()))
)
flags.DEFINE_string(
    "estimator",
    None,
    "Of the gradient: {}.".format(", ".join(estimators.list_estimators())),
)
flags.DEFINE_string(
    "meta_objective",
    None,
    "What is minimised: {}.".format(", ".join(list_meta_objectives())),
)
flags.DEFINE_enum("counting", None, ["released", "corrected"], "Of objectives.")
flags.DEFINE_enum("meta_optimizer", None, meta_optimizers.LIST, "Of meta-parameters.")
flags.DEFINE_string("init_weights", None, "Name or path of weights to start from.")
flags.DEFINE_boolean(
    "second_derivatives", None, "Whether gradients are differentiated."
)
flags.DEFINE_boolean("cosine_decay", None, "Whether the meta learning rate decays.")
flags.DEFINE_boolean("spread_over_elements", None, "Learning rates differ by element.")
_INTEGERS = {
    "outer_steps": "Updates of the meta-parameters.",
    "checkpoint_every": "Outer steps between checkpoints.",
    "validate_every": "Outer steps between validations; 0: never.",
    "seed": "Of everything random.",
    "copies": "Instances of each task.",
    "cohorts": "Cohorts of trajectories; by default one a replica or worker.",
    "block_size": "Elements a block of the packed layout.",
    "parts": "Parts of a window that are run side by side.",
    "objective_rows": "Rows on which objectives are recorded; 0: all.",
    "min_window_steps": "Least inner steps of a window.",
    "max_window_steps": "Most inner steps of a window.",
}
_FLOATS = {
    "meta_learning_rate": "At the first outer step.",
    "mean_horizon": "Mean inner steps of a trajectory.",
    "clip_through_time": "Bound on what flows back between inner steps; 0: none.",
    "clip_value": "Bound on elements of the meta-gradient; 0: none.",
    "clip_norm": "Bound on the norm of the meta-gradient; 0: none.",
    "pes_sigma": "Standard deviation of the perturbations.",
    "minibatch_weight": "Of tasks that draw minibatches.",
    "noisy_weight": "Of tasks with noise or zeroed gradients.",
    "deterministic_weight": "Of all other tasks.",
    "low_learning_rate": "Lower end of initial learning rates.",
    "high_learning_rate": "Upper end of initial learning rates.",
    "scale_range": "Factor of the random rescaling.",
    "scale_jitter": "Spread of the scale from tensor to tensor.",
    "redraw_probability": "Chance of new learning rates at a window's start.",
    "divergence_bound": "Growth of an objective that cuts a task off.",
    "ratio": "Of the nominal learning rate to the size of parameters.",
    "memory": "Steps in which deviations from the nominal rate are forgotten.",
    "decay_steps": "Steps after which the nominal rate falls.",
    "power": "With what power of the steps it falls.",
    "lowest": "Least deviation of log learning rates from the nominal one.",
    "highest": "Largest deviation.",
    "largest": "Times the problem's size that a tensor counts for at most; 0: any.",
    "shallow_tensors": "From so many tensors on steps are shorter; 0: never.",
}
for _name, _help in _INTEGERS.items():
    flags.DEFINE_integer(_name, None, _help)
for _name, _help in _FLOATS.items():
    flags.DEFINE_float(_name, None, _help)
flags.DEFINE_float("window_steps", None, "Mean inner steps of a window.")
flags.DEFINE_list("trained_arrays", None, "Names, or PREFIX*; empty: all.")
flags.DEFINE_boolean(
    "nominal", None, "A nominal learning rate, see its module; the weights' own if any."
)
# A flag cannot say None, so 0 does.
_ZERO_IS_NONE = (
    *("objective_rows", "clip_through_time", "clip_value", "clip_norm"),
    *("largest", "shallow_tensors"),
)


def config_from_flags(cohorts: int = 1) -> TrainingConfig:
    """The preset with what the flags change.

    Args:
        cohorts: Their number where no flag gives it.

    Raises:
        ValueError: Flags contradict each other, a value is out of its range, or
            `--init_weights` cannot be loaded.
    """
    changes = {"cohorts": cohorts}
    for part in (TrainingConfig, TrajectoryOptions, UnrollOptions, NominalRate):
        for field in dataclasses.fields(part):
            if field.name == "nominal":
                continue
            value = FLAGS[field.name].value if field.name in FLAGS else None
            if value is not None:
                changes[field.name] = value
    for name in _ZERO_IS_NONE:
        if changes.get(name) == 0:
            changes[name] = None
    if FLAGS.window_steps is not None:
        changes["mean_window_steps"] = FLAGS.window_steps
    nominal = {field.name for field in dataclasses.fields(NominalRate)}
    if FLAGS.nominal is False and nominal & set(changes):
        raise ValueError(
            f"--nonominal goes without {sorted(nominal)}, received "
            f"{sorted(nominal & set(changes))}"
        )
    if FLAGS.nominal is False:
        changes["nominal"] = None
    elif FLAGS.nominal:
        changes["nominal"] = nominal_rate_of(FLAGS.init_weights) or NominalRate()
    return preset(FLAGS.preset, **changes)


def main(arguments):
    """Trains until the last outer step."""
    if len(arguments) > 1:
        raise app.UsageError(f"train takes flags alone, received {arguments[1:]}")
    try:
        check_backend()
        import_modules(FLAGS.modules)
        where = distribution(FLAGS.strategy, FLAGS.replicas)
        config = config_from_flags(where.num_replicas)
        trainer = Trainer(config, FLAGS.train_dir, where)
        if where.is_chief and FLAGS.validate and config.validate_every:
            trainer.validate_with(_validator(trainer))
    except (ValueError, OSError) as error:
        raise app.UsageError(str(error)) from error
    logging.info(
        "%d tasks in %d groups, %d parameters in %d blocks of %d",
        len(trainer.batch.tasks),
        len(trainer.batch.groups),
        int(trainer.batch.layout.tensor_elements.sum()),
        len(trainer.batch.layout.block_tensor),
        trainer.batch.layout.block_size,
    )
    try:
        trainer.train()
    except (ValueError, OSError) as error:
        # Some tasks show only as they are trained that they cannot be, and disks that
        # they are full.
        logging.debug("refused by", exc_info=True)
        raise app.UsageError(str(error)) from error


def _validator(trainer):
    try:
        from meta_training.outer.validation import default_validator

        # The data of its networks come with scikit-learn.
        return default_validator(trainer.optimizer)
    except ImportError as error:
        logging.warning("no validation: %s", error)
        return None


def run():
    """Entry point."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
