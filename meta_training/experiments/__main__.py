r"""The paper's experiments, one or all:

    python -m meta_training.experiments all --budget=small
    python -m meta_training.experiments ablations --budget=full
    python -m meta_training.experiments report --budget=full

An experiment that is done with the same settings is not run again. So `all` resumes if
it is started again after a kill. `all` and `report` copy finished experiments into
`--results` and write `REPORT.md`.
"""

import os
import pathlib

# Before TensorFlow is imported: its notes on the processor are no news here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags, logging

from meta_training import command
from meta_training.evaluation.figures import load_pyplot
from meta_training.experiments.catalogue import experiment, list_experiments
from meta_training.experiments.experiment import BUDGETS
from meta_training.experiments.report import write_report
from meta_training.experiments.runner import Request, collect, run_experiment
from meta_training.optimizers import load_trained

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).parents[2]


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_enum("budget", "small", BUDGETS, "How much to compute.")
    flags.DEFINE_string(
        "output", None, "Folder of experiments; by default experiments/BUDGET."
    )
    flags.DEFINE_string(
        "results",
        None,
        "Folder of results for reports; by default that of the repository, or, outside "
        "a checkout, experiments/results.",
    )
    flags.DEFINE_string("report", None, "File of the report; by default REPORT.md.")
    flags.DEFINE_integer(
        "seeds", None, "Draws per task instead of the budget's.", lower_bound=1
    )
    flags.DEFINE_string(
        "weights", "default", "Name or path of the weights to evaluate."
    )


def main(arguments):
    """Runs the named experiments."""
    names = set(arguments[1:])
    known = [*list_experiments(), "all", "report"]
    command.prepare(arguments[:1])
    with command.usage_errors():
        if not names or names - set(known):
            raise ValueError(
                f"Arguments must be one or more of {', '.join(known)}. "
                f"Received: {', '.join(sorted(names - set(known))) or 'none'}"
            )
        weights = load_trained(FLAGS.weights)
        # Absolute, since runs of meta-training store the path of their initial weights.
        output = pathlib.Path(FLAGS.output or f"experiments/{FLAGS.budget}").absolute()
        results, report = _places()
        request = Request(FLAGS.budget, FLAGS.seeds, weights, FLAGS.weights)
        chosen = [name for name in list_experiments() if {name, "all"} & names]
        is_reported = bool({"all", "report"} & names)
        # Check what cannot be written before anything is computed.
        load_pyplot()
        places = [output] * bool(chosen) + [results, report.parent] * is_reported
        for folder in places:
            folder.mkdir(parents=True, exist_ok=True)
        if report.is_dir():
            raise ValueError(f"--report must be a file. Received: {str(report)!r}")
        for name in chosen:
            run_experiment(experiment(name), request, output, logging.info)
        if is_reported:
            collect(output, results, list_experiments())
            shown = write_report(results, report)
            logging.info("%s: %s", report, ", ".join(shown) or "no experiment yet")


def _places():
    """The folder of results and the path of the report."""
    folder, results = pathlib.Path(), pathlib.Path("experiments", "results")
    if (ROOT / "setup.py").is_file():
        folder, results = ROOT, ROOT / "meta_training" / "results" / "experiments"
    return (
        pathlib.Path(FLAGS.results or results),
        pathlib.Path(FLAGS.report or folder / "REPORT.md"),
    )


if __name__ == "__main__":
    command.run(main, define_flags)
