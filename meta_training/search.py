r"""Searches for better weights by whole runs, without a gradient through time.

python -m meta_training.search --folder=runs/a --weights=default \
        --estimator=cma --parametrisation=readouts --inner_steps=30000000

The folder holds `weights.npz`, where the search stands, and its curve, `search.csv`. It
goes on where it was left when it is started again, after SIGTERM or a crash. Runs are
scored against a table (`python -m meta_training.reference`).
"""

from absl import flags, logging

from learned_optimizer.utils.flags import define_flags, flag_settings
from meta_training import command
from meta_training.whole_runs.generations import RunConfig
from meta_training.whole_runs.search import Search, SearchConfig, Terminated

FLAGS = flags.FLAGS


def define():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("folder", None, "Of the search.", required=True)
    command.define_modules()
    define_flags(SearchConfig, RunConfig)


def main(arguments):
    """Searches until the inner steps are spent."""
    command.prepare(arguments, FLAGS.modules)
    try:
        with command.usage_errors():
            config = SearchConfig(
                **flag_settings(SearchConfig),
                runs=RunConfig(**flag_settings(RunConfig)),
            )
            Search(config, FLAGS.folder).train()
    except Terminated as ended:
        logging.info("%s", ended)


if __name__ == "__main__":
    command.run(main, define)
