r"""Searches for better weights by whole runs, without a gradient through time.

python -m meta_training.search --folder=runs/a --weights=default \
        --estimator=cma --parametrisation=readouts --inner_steps=30000000

The folder holds `weights.npz`, where the search stands, and its curve, `search.csv`. It
goes on where it was left when it is started again, after SIGTERM or a crash. Runs are
scored against a table (`python -m meta_training.reference`).
"""

from absl import app, flags, logging

from learned_optimizer.utils.backend import check_backend
from learned_optimizer.utils.flags import define_flags, flag_settings
from meta_training.outer.modules import MODULES, import_modules
from meta_training.whole_runs.generations import RunConfig
from meta_training.whole_runs.search import Search, SearchConfig, Terminated

FLAGS = flags.FLAGS


def define():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("folder", None, "Of the search.", required=True)
    flags.DEFINE_list("modules", [], MODULES)
    define_flags(SearchConfig, RunConfig)


def main(arguments):
    """Searches until the inner steps are spent."""
    if len(arguments) > 1:
        raise app.UsageError(f"search takes flags alone. Received: {arguments[1:]}")
    try:
        check_backend()
        import_modules(FLAGS.modules)
        config = SearchConfig(
            **flag_settings(SearchConfig), runs=RunConfig(**flag_settings(RunConfig))
        )
        Search(config, FLAGS.folder).train()
    except Terminated as ended:
        logging.info("%s", ended)
    except (ValueError, OSError) as error:
        raise app.UsageError(str(error)) from error


if __name__ == "__main__":
    define()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)
