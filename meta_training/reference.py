r"""Computes the table that whole runs are scored against.

python -m meta_training.reference --output=runs/reference.npz

NAdamW on every task of a set, at seven rates, on several draws of it, for several
horizons, at a constant rate and with its cosine. The table is written after each task,
and tasks that it has are not done again. Without `--output` it is that of the package.
"""

import pathlib

from absl import flags, logging

from meta_training import command
from meta_training.tasks import task_set
from meta_training.whole_runs.reference import HORIZONS, REFERENCE
from meta_training.whole_runs.reference_runs import SEEDS, compute_table

FLAGS = flags.FLAGS


def define():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("output", str(REFERENCE), "The .npz file to write or extend.")
    flags.DEFINE_list("task_sets", ["default_networks"], "Sets of tasks.")
    flags.DEFINE_list("horizons", list(map(str, HORIZONS)), "Numbers of steps.")
    flags.DEFINE_integer("seeds", SEEDS, "Draws of each task.", lower_bound=1)
    command.define_modules()


def main(arguments):
    """Computes the rows that the table lacks."""
    command.prepare(arguments, FLAGS.modules)
    with command.usage_errors():
        tasks = [task for name in FLAGS.task_sets for task in task_set(name)]
        compute_table(
            tasks,
            pathlib.Path(FLAGS.output),
            sorted({int(horizon) for horizon in FLAGS.horizons}),
            seeds=FLAGS.seeds,
            report=logging.info,
        )


if __name__ == "__main__":
    command.run(main, define)
