r"""Meta-trains an optimizer.

    python -m meta_training.train --preset=default --train_dir=/tmp/runs/a \
        --init_weights=bootstrap-v1 --outer_steps=2000

Started again with the same flags, a run resumes from its last checkpoint.
"""

from absl import flags, logging

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.flags import define_flags, flag_settings
from meta_training import command
from meta_training.distribution import STRATEGIES, distribution
from meta_training.inner.trajectories import TrajectoryConfig
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import nominal_rate_of
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import PRESETS, TrainingConfig, preset

FLAGS = flags.FLAGS


def define_train_flags(values: flags.FlagValues = FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("train_dir", None, "Folder of the run.", values, required=True)
    flags.DEFINE_enum(
        "preset", "default", sorted(PRESETS), "Where settings start.", values
    )
    flags.DEFINE_enum(
        "strategy", "one_device", STRATEGIES, "How work is distributed.", values
    )
    flags.DEFINE_integer(
        "replicas", None, "Devices of mirrored; by default all.", flag_values=values
    )
    flags.DEFINE_boolean(
        "validate", True, "Whether held-out networks choose a checkpoint.", values
    )
    command.define_modules(values)
    # Flags without a value leave a setting as the preset has it.
    define_flags(
        TrainingConfig,
        TrajectoryConfig,
        UnrollConfig,
        NominalRate,
        without=("mean_window_steps", "max_steps"),
        unset=True,
        flag_values=values,
    )
    flags.DEFINE_float(
        "window_steps", None, "Mean inner steps of a window.", flag_values=values
    )
    flags.DEFINE_boolean(
        "nominal",
        None,
        "Whether there is a nominal learning rate; by default as in the weights.",
        values,
    )


def config_from_flags(
    cohorts: int = 1, values: flags.FlagValues = FLAGS
) -> TrainingConfig:
    """The preset with what the flags change.

    Raises:
        ValueError: Flags contradict each other, a value is out of its range, or
            `--init_weights` cannot be loaded.
    """

    def given(*classes):
        return flag_settings(*classes, unset=True, flag_values=values)

    nominal = given(NominalRate)
    changes = given(TrainingConfig, TrajectoryConfig, UnrollConfig)
    changes = {"cohorts": cohorts, **changes, **nominal}
    if values.window_steps is not None:
        changes["mean_window_steps"] = values.window_steps
    if values.nominal is False and nominal:
        raise ValueError(
            "--nonominal must go without flags of the nominal rate. Received: "
            f"{', '.join(sorted(nominal))}"
        )
    if values.nominal is False:
        changes["nominal"] = None
    elif values.nominal:
        changes["nominal"] = nominal_rate_of(values.init_weights) or NominalRate()
    return preset(values.preset, **changes)


def main(arguments):
    """Trains until the last outer step."""
    command.prepare(arguments, FLAGS.modules)
    with command.usage_errors():
        where = distribution(FLAGS.strategy, FLAGS.replicas)
        config = config_from_flags(where.num_replicas)
        trainer = Trainer(config, FLAGS.train_dir, where)
        if where.is_chief and FLAGS.validate and config.validate_every:
            trainer.validate_with(_validator(trainer))
    logging.info(
        "%d tasks in %d groups, %d parameters in %d blocks of %d",
        len(trainer.batch.tasks),
        len(trainer.batch.groups),
        int(trainer.batch.layout.tensor_elements.sum()),
        len(trainer.batch.layout.block_tensor),
        trainer.batch.layout.block_size,
    )
    # Some tasks show only as they are trained that they cannot be, and disks that they
    # are full.
    with command.usage_errors():
        trainer.train()


def _validator(trainer):
    try:
        from meta_training.outer.validation import Validator

        # The data of its networks come with scikit-learn.
        return Validator(trainer.optimizer)
    except ImportError as error:
        logging.warning("no validation: %s", error)
        return None


if __name__ == "__main__":
    command.run(main, define_train_flags)
