r"""Collects what was asked of default weights and what came out, as one page.

    python -m meta_training.goals --name=default-v7

writes `meta_training/results/NAME/goals.md` from files of the repository alone: the
reports of three evaluations in folders beside it (`final`, the final group of held-out
networks; `long` and `rates`, some of it again, for 50,000 steps and from other initial
rates), the curves of searches, and the runs of a narrow ResNet50V2. It says what is
missing.
"""

import pathlib

import numpy as np
from absl import flags, logging

from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.markdown import markdown_table
from learned_optimizer.weights import ALIASES, DEFAULT
from meta_training import command
from meta_training.evaluation.report import read_report

FLAGS = flags.FLAGS
_RESULTS = pathlib.Path(__file__).parent / "results"
# `imagenet` is not imported.
_NARROW = pathlib.Path(__file__).parents[1] / "imagenet/results/resnet_v2_50_narrow.csv"
_MISSING = "Not run."
# Of this part only the rows count that name the rule without its RNN.
_BY_HAND = "Against the rule by hand"
_HEAD = """# What was asked of `{name}`, and what came out

Written by `python -m meta_training.goals --name={name}` from the files that each part
names. Untuned weights stand against baselines that are tuned, with their length known
and without; the evaluations have every run in `runs.csv`."""
# Title, what was asked, the evaluation and the sections of its report.
_ASKED = (
    (
        _BY_HAND,
        "With a length: its final loss in half the steps or fewer (geometric mean), "
        "and on no network later.",
        "final",
        ("Steps to the final loss of another", "Ratios of final losses"),
    ),
    (
        "Against tuned optimizers",
        "At or below NAdamW in one configuration on 80% of the final group, along the "
        "run and at the end, and at or below Adam and RMSprop tuned for each network "
        "on 60% at the end.",
        "final",
        ("Tasks won", "Final loss of each task", "Test accuracy"),
    ),
    (
        "Batch normalisation",
        "The loss under running averages is at most 1.5 times the loss in training "
        "mode plus 0.05 from a quarter of the run on.",
        "final",
        ("Under running averages",),
    ),
    (
        "50,000 steps",
        "Without a length the final loss, floored at 1e-4, is at most 1.1 times the "
        "best along the way; with it the final loss is lower than without.",
        "long",
        ("Final against best", "Final loss of each task"),
    ),
    (
        "Initial rates from 1e-6 to 1e-1",
        "The final loss stays within a factor of 1.5.",
        "rates",
        ("Initial rates of ",),
    ),
)


def page(name: str, results: pathlib.Path = _RESULTS, narrow=_NARROW) -> str:
    """The page as Markdown, for weights of that name.

    `results` is the folder of all results, `narrow` the CSV of the narrow network.
    """
    parts = [
        _HEAD.format(name=name),
        "## Meta-training pays",
        "Asked: the score rises as more inner steps are spent. A score is how much "
        "faster than the reference runs are, in logs; here the mean of center less "
        "start over each quarter of a search, and its standard error.",
        _searches(results / "whole_runs"),
    ]
    for title, asked, folder, wanted in _ASKED:
        parts += [f"## {title}", f"Asked: {asked}"]
        report = results / name / folder / "report.md"
        named = "by_hand" if title == _BY_HAND else ""
        tables = []
        for section, lines in read_report(report).items() if report.is_file() else ():
            rows = [line for line in lines[2:] if named in line]
            if section.startswith(wanted) and rows:
                tables += [f"**{section}**", "\n".join([*lines[:2], *rows])]
        if tables:
            link = f"From the [evaluation]({folder}/report.md), which explains it:"
            tables = [link, *tables]
        parts += tables or [_MISSING]
    parts += [
        "## ResNet50V2",
        "Asked: on a narrow ResNet50V2 (48 px, 100 classes, 2,000 steps), with the "
        "length known, a training loss of the last 100 steps and a top-1 at or better "
        "than the best Adam with a cosine; the same on ResNet50V2 and Inception V3 "
        "beside NAdamW and momentum. The narrow one, seed by seed:",
        _narrow_network(narrow),
        "Of the large ones `default-v2` ran on both, `default-v7` on ResNet50V2 "
        "([results](../../../imagenet/results/README.md)).",
    ]
    return "\n\n".join(parts) + "\n"


def _searches(folder):
    rows = []
    for path in sorted(folder.glob("search_*.csv")):
        found = read_csv(path)
        gains = [row["center_score"] - row["start_score"] for row in found]
        for part in np.array_split(np.arange(len(found)), 4):
            values = np.array(gains)[part]
            error = values.std(ddof=1) / np.sqrt(len(values))
            spent = f"{found[part[-1]]['inner_steps']:.2g}"
            rows.append([path.stem, spent, f"{values.mean():.3f}", f"{error:.3f}"])
    header = ["curve", "inner steps spent", "center less start", "standard error"]
    return markdown_table(header, rows)


def _narrow_network(path):
    # Of each run the last row stays.
    last = {
        (row["optimizer"], row["seed"]): row for row in read_csv(path, ("optimizer",))
    }
    rows = [
        [
            *(name, f"{seed:.0f}", f"{row['training_loss']:.3f}"),
            *(f"{row['validation_loss']:.3f}", f"{row['top_1']:.1%}"),
        ]
        for (name, seed), row in last.items()
    ]
    header = ["optimizer", "seed", "training, last 100 steps", "validation", "top-1"]
    return markdown_table(header, rows)


def define_flags(values: flags.FlagValues = FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("name", ALIASES[DEFAULT], "Of the weights.", values)


def main(arguments):
    """Writes the page."""
    command.prepare(arguments)
    folder = _RESULTS / FLAGS.name
    with command.usage_errors():
        if not folder.is_dir():
            raise ValueError(
                f"--name must be that of a folder of {_RESULTS.name}. "
                f"Received: {FLAGS.name!r}"
            )
        atomic_write(folder / "goals.md", page(FLAGS.name).encode())
    logging.info("%s", folder / "goals.md")


if __name__ == "__main__":
    command.run(main, define_flags)
