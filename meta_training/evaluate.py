"""Command line of the evaluation:

    python -m meta_training.evaluate --weights=default --tasks=test --output=report

Writes `report.md`, figures and CSV files to the output folder. Its `cache` keeps all
runs, so a second set of weights needs no new runs of the baselines. It knows a task by
its settings: after a change of its code, choose another folder.
"""

import collections
import dataclasses
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence

# Before TensorFlow is imported: its notes on the processor are no news here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags, logging

from learned_optimizer.utils.flags import define_flags, flag_settings, require_member
from meta_training import command
from meta_training.evaluation import write_report
from meta_training.evaluation.comparison import EvaluationConfig, evaluate
from meta_training.evaluation.figures import load_pyplot
from meta_training.evaluation.tables import best_single_rates
from meta_training.held_out import list_network_groups, network_group
from meta_training.held_out.openings import opened_in
from meta_training.optimizers import TrainedWeights, load_trained
from meta_training.runs import BASELINES
from meta_training.tasks import list_task_sets, task_set

FLAGS = flags.FLAGS


def define_evaluate_flags(values: flags.FlagValues = FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    for name, default, text in (
        ("weights", ["default"], "Names or paths of weights, separated by commas."),
        ("baselines", list(BASELINES), "Baselines; empty: weights alone."),
        ("only", [], "Names of the tasks to run; empty: all."),
    ):
        flags.DEFINE_list(name, default, text, flag_values=values)
    for name, default, text in (
        ("tasks", "test", "A held-out group (test, ...) or a task set (default, ...)."),
        ("rates_from", None, "A runs.csv with one rate for all of each baseline."),
        ("output", "evaluation", "Folder of the report."),
    ):
        flags.DEFINE_string(name, default, text, values)
    command.define_modules(values)
    define_flags(EvaluationConfig, flag_values=values)


def find_tasks(*names: str, only: Sequence[str] = ()):
    """The tasks of groups of held-out networks and of task sets, each task once.

    Args:
        *names: Of the groups and sets.
        only: Names of those tasks to return; empty: all.

    Raises:
        ValueError: There is no group or set of a name, or no task of a name.
    """
    tasks = []
    for name in names:
        require_member("tasks", name, list_network_groups() + list_task_sets())
        if name in list_network_groups():
            tasks += network_group(name)
        else:
            tasks += task_set(name)
    by_name = {task.name: task for task in tasks}
    if not set(only) <= set(by_name):
        raise ValueError(
            f"only must be of {', '.join(by_name)}. Received: {', '.join(only)}"
        )
    return [by_name[chosen] for chosen in only] or list(dict.fromkeys(tasks))


def find_weights(names: list[str]) -> list[TrainedWeights]:
    """Weights by name or path.

    Weights of the same name are named by their path: all runs of meta-training give
    their weights the same name.

    Raises:
        ValueError: Some cannot be loaded.
    """
    found = [load_trained(name) for name in names]
    counts = collections.Counter(weights.name for weights in found)
    for place, weights in enumerate(found):
        if counts[weights.name] > 1:
            path = names[place].removesuffix(".npz")
            found[place] = dataclasses.replace(weights, name=path)
    return found


def _check_opened(weights):
    """Refuses weights that the final group has not evaluated."""
    others = [w.name for w in weights if not opened_in(w.card.get("sha256"))]
    if others:
        raise ValueError(
            "the final group must be opened by `python -m meta_training.publish "
            "--final=FOLDER`, for weights that are to ship; here are baselines "
            f"(--weights=) and weights that it evaluated. Received: {others}"
        )


def main(arguments):
    """Evaluates and writes the report."""
    command.prepare(arguments, FLAGS.modules)
    with command.usage_errors():
        settings = EvaluationConfig(
            **flag_settings(EvaluationConfig, flag_values=FLAGS)
        )
        tasks = find_tasks(FLAGS.tasks, only=FLAGS.only)
        weights = find_weights(FLAGS.weights)
        if FLAGS.tasks == "final":
            _check_opened(weights)
        single_rates = {}
        if FLAGS.rates_from:
            single_rates = best_single_rates(FLAGS.rates_from)
        # Check what the report needs before anything is run.
        load_pyplot()
        output = pathlib.Path(FLAGS.output)
        output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with command.usage_errors():
        results = evaluate(
            weights,
            tasks,
            settings,
            output / "cache",
            FLAGS.baselines,
            logging.info,
            single_rates=single_rates,
        )
    line = shlex.join(["python", "-m", "meta_training.evaluate", *sys.argv[1:]])
    report = write_report(results, output, line)
    # So that a card can prove that its figures are of these numbers.
    lines = [f"{w.name} {w.card.get('sha256', 'unsaved')}" for w in weights]
    (output / "weights.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    logging.info("%s after %.0f s", report, time.perf_counter() - begin)


if __name__ == "__main__":
    command.run(main, define_evaluate_flags)
