r"""Adds weights to those that ship, with a card that documents them.

    python -m meta_training.publish --weights=runs/a/calibrated.npz --name=default-v1 \
        --train_dirs=runs/a --reports=evaluation/test \
        --commands="python -m meta_training.train --train_dir=runs/a" \
        --commands="python -m meta_training.calibrate --weights=... --output=..." \
        --limits="What they cannot do."

With `--final=FOLDER` the final group of held-out networks evaluates them, once: the
report lies in the folder and on the card, and a line in `openings.csv` beside the
weights. What was stopped is resumed in the same folder, where baselines may have run
before: `python -m meta_training.evaluate --tasks=final --weights= --output=FOLDER`.
Weights that ship already get that report on their card: `--weights=default-v7
--name=default-v7 --final=FOLDER`; nothing else of them changes but `--limits`.

The card has the settings and calibrations, the curve (loss and validation) of every run
of their training, and the tables of the reports. The reports must be of these numbers:
`weights.txt` in the folder of a report has their sha256.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import sys

from absl import flags, logging

from learned_optimizer import load_weights, save_weights
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.flags import define_flags as define_settings
from learned_optimizer.utils.flags import flag_settings
from learned_optimizer.weights import FOLDER
from meta_training import command
from meta_training.evaluation import write_report
from meta_training.evaluation.comparison import EvaluationConfig, evaluate
from meta_training.evaluation.figures import load_pyplot
from meta_training.evaluation.report import read_report
from meta_training.evaluation.tables import best_single_rates
from meta_training.held_out import network_group
from meta_training.held_out.data import load_data
from meta_training.held_out.openings import put_on_record
from meta_training.optimizers import load_trained
from meta_training.runs import BASELINES

FLAGS = flags.FLAGS
# Sections of a report that a card repeats.
SECTIONS = (
    "All tasks",
    "Tasks won",
    "Ratios of final losses",
    "Final loss of each task",
    "Test accuracy",
    "Families",
    "Under running averages",
    "Final against best",
    "Initial rates",
)
_CURVE_POINTS = 25


def define_flags(values: flags.FlagValues = FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("weights", None, "Path of the weights.", values, required=True)
    flags.DEFINE_string("name", None, "Versioned name, NAME-v1.", values, required=True)
    flags.DEFINE_string("limits", "", "Known limits.", values)
    flags.DEFINE_string(
        "final", None, "Evaluate them on the final group; its folder.", values
    )
    flags.DEFINE_string("rates_from", None, "As of `meta_training.evaluate`.", values)
    flags.DEFINE_string(
        "output", os.fspath(FOLDER), "Folder of the shipped weights.", values
    )
    flags.DEFINE_multi_string(
        "commands", [], "The commands that made them, in order.", values
    )
    for name, default, text in (
        ("train_dirs", [], "Folders of the runs of their training."),
        ("reports", [], "Folders of evaluations of these weights."),
        ("baselines", list(BASELINES), "As of `meta_training.evaluate`."),
        ("beside", [], "Other weights to run on the final group, as baselines."),
    ):
        flags.DEFINE_list(name, default, text, flag_values=values)
    define_settings(EvaluationConfig, without=("horizon",), flag_values=values)


def curve(train_dir: pathlib.Path, weights: str = "weights") -> dict:
    """Loss and validation of a run, at some of its outer steps.

    Steps after the weights are left out: a run that was stopped may have logged steps
    after its last checkpoint.
    """
    card = train_dir / f"{weights}.json"
    last = math.inf
    if card.is_file():
        last = json.loads(card.read_text(encoding="utf-8")).get("outer_step", last)
    rows = [
        row for row in read_csv(train_dir / "train.csv") if row["outer_step"] < last
    ]
    stride = max(1, len(rows) // _CURVE_POINTS)
    found = {
        "outer_steps": len(rows),
        "inner_steps_of_a_task": round(sum(row["window_steps"] for row in rows)),
        "hours": round(sum(row["seconds"] for row in rows) / 3600, 3),
        "loss": _by_step(rows[::stride], "loss"),
    }
    validation = train_dir / "validation.csv"
    if validation.is_file():
        # A validation comes after its number of steps, a row of `train.csv` before.
        rows = [row for row in read_csv(validation) if row["outer_step"] <= last]
        found["validation_score"] = _by_step(rows, "score")
    return found


def _taken_from(folder):
    """Which of the weights in the folder of a run were used."""
    path = pathlib.Path(FLAGS.weights)
    is_best = path.stem == "best" and path.parent.resolve() == folder.resolve()
    return "best" if is_best else "weights"


def _by_step(rows, column):
    return {str(int(row["outer_step"])): round(row[column], 4) for row in rows}


def tables(report: pathlib.Path, sha256: str) -> dict:
    """The command and the tables of a report, line by line.

    Raises:
        ValueError: The report is missing, or is not of weights of that sha256.
    """
    path = report / "report.md"
    if not path.is_file():
        raise ValueError(
            f"--reports must be folders with a report.md. Received: {str(report)!r}"
        )
    known = report / "weights.txt"
    text = known.read_text(encoding="utf-8") if known.is_file() else ""
    if not any(sha256 in line.split() for line in text.splitlines()):
        raise ValueError(
            f"--reports must be of the weights to publish, with sha256 {sha256}. "
            f"Received: {str(report)!r}, which is of others"
        )
    found = read_report(path)
    return {
        title: lines
        for title, lines in found.items()
        if title == "command" or title.startswith(SECTIONS)
    }


def open_final(weights, sha256: str, folder: pathlib.Path, record: pathlib.Path):
    """Evaluates weights on the final group, and puts that on record.

    `folder` is that of the report and its cache, `record` the CSV file of all openings.

    Raises:
        ValueError: They were evaluated before, in another folder.
    """
    folder = folder.resolve()
    given = flag_settings(EvaluationConfig, flag_values=FLAGS)
    settings = EvaluationConfig(**given, horizon=True)
    beside = [load_trained(name) for name in FLAGS.beside]
    single_rates = best_single_rates(FLAGS.rates_from) if FLAGS.rates_from else {}
    load_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = network_group("final")
    load_data(tasks[0].data_set)  # Or say what is missing before it is on record.
    put_on_record(sha256, folder.name, record)
    results = evaluate(
        [weights, *beside],
        tasks,
        settings,
        folder / "cache",
        baselines=FLAGS.baselines,
        log=logging.info,
        single_rates=single_rates,
    )
    line = shlex.join(["python", "-m", "meta_training.publish", *sys.argv[1:]])
    write_report(results, folder, line)
    (folder / "weights.txt").write_text(f"{weights.name} {sha256}\n", encoding="utf-8")


def add_final(published, sha256: str, output: pathlib.Path):
    """Adds the final group's report to the card of weights that ship already.

    Raises:
        ValueError: There is no such report, or other weights have that name.
    """
    if not FLAGS.final or published.card["sha256"] != sha256:
        raise ValueError(
            "published weights must stay as they are: raise the version, or give the "
            "same weights and --final, to be evaluated by the final group. Received: "
            f"{FLAGS.name!r}, which exists"
        )
    folder = pathlib.Path(FLAGS.final)
    open_final(published, sha256, folder, output.with_name("openings.csv"))
    found = tables(folder, sha256)
    others = [
        evaluation
        for evaluation in published.card["evaluations"]
        if evaluation["command"] != found["command"]
    ]
    limits = FLAGS.limits or published.card["known_limits"]
    card = {"evaluations": [*others, found], "known_limits": limits}
    save_weights(published, output, card)


def main(arguments):
    """Writes the weights and their card."""
    command.prepare(arguments)
    with command.usage_errors():
        if not re.fullmatch(r"[a-z_]+-v\d+", FLAGS.name):
            raise ValueError(
                "--name must be lower-case words and a version, like default-v1. "
                f"Received: {FLAGS.name!r}"
            )
        weights = load_weights(FLAGS.weights)
        sha256 = weights.card["sha256"]
        output = pathlib.Path(FLAGS.output) / f"{FLAGS.name}.npz"
        if output.exists():
            add_final(load_weights(os.fspath(output)), sha256, output)
            return
        if not (any(FLAGS.commands) and FLAGS.limits.strip()):
            raise ValueError(
                "--commands and --limits must be given: a card says how weights were "
                f"made and what they cannot do. Received: commands {FLAGS.commands!r} "
                f"and limits {FLAGS.limits!r}"
            )
        named = dataclasses.replace(weights, name=FLAGS.name)
        reports = [*FLAGS.reports]
        for folder in reports:
            tables(pathlib.Path(folder), sha256)
        if FLAGS.final:
            record = output.with_name("openings.csv")
            open_final(named, sha256, pathlib.Path(FLAGS.final), record)
            reports.append(FLAGS.final)
        card = {
            "commands": FLAGS.commands,
            "runs": [
                curve(folder, _taken_from(folder))
                for folder in map(pathlib.Path, FLAGS.train_dirs)
            ],
            "evaluations": [tables(pathlib.Path(folder), sha256) for folder in reports],
            "known_limits": FLAGS.limits,
        }
    written = save_weights(named, output, card)
    logging.info("%s: sha256 %s", output, written)


if __name__ == "__main__":
    command.run(main, define_flags)
