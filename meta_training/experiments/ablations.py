"""Ablations: each design element removed, with the same meta-training for all."""

import dataclasses
import pathlib

import numpy as np

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.figures import save_figure, subplots
from meta_training.experiments.evaluated import (
    RUNS,
    RunTable,
    count,
    describe_evaluation,
    evaluate_into,
    link,
)
from meta_training.experiments.experiment import Experiment
from meta_training.experiments.training import (
    TRAINING,
    describe_training,
    train_and_evaluate,
)
from meta_training.held_out import list_network_groups
from meta_training.optimizers import HierarchicalRule

WHOLE = "whole"
# The differences from the whole architecture, which is that of `default-v1`;
# `default-v2` also bounds the nominal rate, for deep networks. The nominal rate is
# ours, not the paper's, and needs dynamic output scaling.
VARIANTS = {
    WHOLE: {},
    "one momentum timescale": {"gradient_timescales": 1},
    "fixed input scaling": {"learnable_decay": False},
    "no nominal rate": {"nominal": None},
    "no dynamic output scaling": {
        "dynamic_output_scale": False,
        "relative_learning_rate": False,
        "nominal": None,
    },
    "no relative learning rate": {"relative_learning_rate": False},
    "no gradient shortcut": {"gradient_shortcut": False},
    "no global level": {"level_sizes": (10, 20)},
    "no tensor and global level": {"level_sizes": (10,)},
    "attention added": {"attention": True},
}


def architecture(variant: str) -> Config:
    """The architecture of a variant."""
    whole = Config(nominal=NominalRate())
    return dataclasses.replace(whole, **VARIANTS[variant])


class Ablations(Experiment):
    """Ten architectures, three seeds each, from fresh weights."""

    name = "ablations"
    title = "Ablations"
    claim = (
        "The architecture is a hierarchy of RNNs, with more features that mirror what "
        "is known of the structure of optimization problems."
    )
    inference = (
        "So each element that the released code has should earn its place: momentum at "
        "several timescales, input and output scaling that adapt, learning rates "
        "relative to their mean, the shortcut from the gradient, the levels above the "
        "parameters. Attention, a gradient taken elsewhere, is one more; that code "
        "leaves it off."
    )
    # All compared weights are meta-trained here.
    evaluates_weights = False
    budgets = {
        "small": {
            "training": TRAINING["small"],
            "meta_seeds": [0, 1, 2],
            "sets": ["test", "experiments_small"],
            "tasks": ["relu_perceptron", "quadratic_20"],
            "steps": 60,
            "seeds": 1,
            "records": 20,
        },
        "full": {
            "training": TRAINING["full"],
            "meta_seeds": [0, 1, 2],
            "sets": ["test", "released_families"],
            "tasks": None,
            "steps": 1000,
            "seeds": 2,
            "records": 24,
        },
    }

    def run(self, job):
        weights = []
        for variant in VARIANTS:
            job.log(variant)
            weights += train_and_evaluate(
                job,
                HierarchicalRule(architecture(variant)),
                variant,
                job.settings["meta_seeds"],
            )
        evaluate_into(job, weights, figures=False)
        draw(job.folder, job.settings)

    def findings(self, folder, settings):
        scores = scores_by_kind(RunTable(folder), settings)
        header, spreads = ["architecture"], []
        rows = {variant: [variant] for variant in next(iter(scores.values()))}
        for kind, found in scores.items():
            header += [kind, "to whole"]
            # Differences are those of the numbers that are printed.
            printed = {
                variant: np.round([np.mean(points), min(points), max(points)], 2)
                for variant, points in found.items()
            }
            whole, low, high = printed[WHOLE]
            spreads.append(f"{high - low:.2f} ({kind})")
            for variant, (mean, lowest, highest) in printed.items():
                # Without a negative zero.
                difference = round(mean - whole, 2) + 0.0
                rows[variant] += [
                    f"{mean:.2f} ({lowest:.2f} to {highest:.2f})",
                    "" if variant == WHOLE else f"{difference:+.2f}",
                ]
        spread = ", ".join(spreads)
        return (
            "Log-loss averaged over the run and over tasks: mean of "
            f"{_count_seeds(scores)} of meta-training (lowest to highest seed), and "
            "its difference to the whole architecture: above 0, a variant does worse "
            f"than the whole. Seeds of the whole one alone differ by {spread}: "
            "smaller differences say nothing.\n\n"
            + markdown_table(header, list(rows.values()))
            + "\n\n`fixed input scaling` holds both decays at the released constants; "
            "`no dynamic output scaling` also loses what needs a learned rate: the "
            "relative learning rate and the nominal rate, which is an addition of this "
            f"project. Every run: {link(folder, RUNS)}."
        )

    def describe(self, folder, settings):
        scores = scores_by_kind(RunTable(folder), settings)
        return (
            f"{describe_training(settings['training'])}, {_count_seeds(scores)}; "
            "evaluated on "
            f"{describe_evaluation(folder, settings)}"
        )


def scores_by_kind(table: RunTable, settings) -> dict[str, dict[str, list[float]]]:
    """Mean log-losses on networks, and on other sets: of each variant, of each seed."""
    found: dict[str, dict[str, list[float]]] = {}
    networks = {row["task"] for row in table.rows if row["family"].startswith("held_")}
    sets = [name for name in settings["sets"] if name not in list_network_groups()]
    kinds = {
        "held-out networks": [task for task in table.tasks if task in networks],
        ", ".join(f"`{name}`" for name in sets): [
            task for task in table.tasks if task not in networks
        ],
    }
    for kind, tasks in kinds.items():
        places = [table.tasks.index(task) for task in tasks]
        if not places:
            continue
        found[kind] = {}
        for optimizer in table.optimizers:
            variant = optimizer.rpartition(", seed ")[0] or optimizer
            mean = table.untuned(optimizer, "mean_log_loss")[places].mean()
            found[kind].setdefault(variant, []).append(float(mean))
    return found


def draw(folder: pathlib.Path, settings) -> None:
    """Draws a row per variant and a point per seed, for networks and the other set."""
    scores = scores_by_kind(RunTable(folder), settings)
    figure, axes = subplots(len(scores), width=5.6)
    variants = list(next(iter(scores.values())))
    for axis, (kind, found) in zip(axes, scores.items(), strict=True):
        for place, variant in enumerate(variants):
            points = found[variant]
            colour = "#d1495b" if variant == WHOLE else "#30638e"
            axis.plot(points, [place] * len(points), "o", color=colour, alpha=0.6)
            axis.plot(np.mean(points), place, "|", color=colour, ms=16, mew=2.5)
        axis.axvline(np.mean(found[WHOLE]), color="#bbbbbb", lw=1, zorder=0)
        title = kind.replace("`", "")
        axis.set(title=title, xlabel="mean log-loss (lower is better)")
        axis.set_yticks(range(len(variants)), variants)
        axis.invert_yaxis()
    for axis in axes[1:]:
        axis.set_yticklabels([])
    save_figure(figure, None, folder / "ablations.png")


def _count_seeds(scores) -> str:
    """The number of seeds in words."""
    counts = {len(points) for found in scores.values() for points in found.values()}
    if len(counts) == 1:
        return count(counts.pop(), "seed")
    return f"{min(counts)} to {max(counts)} seeds"
