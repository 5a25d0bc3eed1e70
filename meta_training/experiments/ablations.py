"""Each design element taken away, with the same meta-training for all."""

import dataclasses

import numpy as np

from learned_optimizer.config import Config
from learned_optimizer.nominal import NominalRate
from meta_training.experiments.evaluated import (
    RUNS,
    RunTable,
    describe_evaluation,
    evaluate_into,
    link,
)
from meta_training.experiments.pictures import save_figure, subplots
from meta_training.experiments.registry import Experiment, register_experiment
from meta_training.experiments.training import TRAINING, describe_training
from meta_training.experiments.variant import train_and_evaluate
from meta_training.reports.report import markdown_table
from meta_training.trainable_optimizers import HierarchicalRule

WHOLE = "whole"
# What differs from the architecture of the weights that ship. The nominal rate is
# ours, not the paper's; it is nothing without dynamic output scaling.
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


@register_experiment
class Ablations(Experiment):
    """Ten architectures, three seeds each, from fresh weights."""

    name = "ablations"
    title = "Ablations"
    claim = (
        "The elements of the design mirror what is known of optimization problems, so "
        "each should earn its place: momentum at several timescales, input and output "
        "scaling that adapt, learning rates relative to their mean, the shortcut from "
        "the gradient, the levels above the parameters. Attention, a gradient taken "
        "elsewhere, is one more; the released code leaves it off."
    )
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
            "sets": ["test", "released"],
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
        self._draw(job)

    def _draw(self, job):
        """A row a variant, a point a seed, for networks and for the corpus."""
        scores = scores_by_kind(RunTable(job.folder))
        figure, axes = subplots(len(scores), width=5.6)
        variants = list(VARIANTS)
        for axis, (kind, found) in zip(axes, scores.items(), strict=True):
            for place, variant in enumerate(variants):
                points = found[variant]
                colour = "#d1495b" if variant == WHOLE else "#30638e"
                axis.plot(points, [place] * len(points), "o", color=colour, alpha=0.6)
                axis.plot(np.mean(points), place, "|", color=colour, ms=16, mew=2.5)
            axis.axvline(np.mean(found[WHOLE]), color="#bbbbbb", lw=1, zorder=0)
            axis.set(title=kind, xlabel="mean log-loss (lower is better)")
            axis.set_yticks(range(len(variants)), variants)
            axis.invert_yaxis()
        for axis in axes[1:]:
            axis.set_yticklabels([])
        save_figure(figure, None, job.folder / "ablations.png")

    def findings(self, folder, settings):
        scores = scores_by_kind(RunTable(folder))
        rows = []
        for variant in VARIANTS:
            cells = [variant]
            for found in scores.values():
                points = found[variant]
                # Rounded first, and no zero with a minus.
                difference = np.mean(points) - np.mean(found[WHOLE])
                difference = round(difference, 2) + 0.0
                cells.append(
                    f"{np.mean(points):.2f} ({min(points):.2f} to {max(points):.2f})"
                )
                cells.append("" if variant == WHOLE else f"{difference:+.2f}")
            rows.append(cells)
        header = ["architecture"]
        for kind in scores:
            header += [kind, "to whole"]
        spread = {
            kind: max(found[WHOLE]) - min(found[WHOLE])
            for kind, found in scores.items()
        }
        spreads = ", ".join(f"{value:.2f} ({kind})" for kind, value in spread.items())
        return (
            "Log-loss averaged over the run and over tasks: mean of "
            f"{len(settings['meta_seeds'])} seeds of meta-training (lowest to highest "
            "seed), and its difference to the whole architecture; above 0, taking the "
            f"element away costs. Seeds of the whole one alone differ by {spreads}: "
            "smaller differences say nothing.\n\n"
            + markdown_table(header, rows)
            + "\n\n`fixed input scaling` holds both decays at the released constants; "
            "`no dynamic output scaling` also loses what needs a learned rate: the "
            "relative learning rate and the nominal rate, which is an addition of this "
            f"project. Every run: {link(RUNS)}."
        )

    def describe(self, settings):
        return (
            f"{describe_training(settings['training'])}, "
            f"{len(settings['meta_seeds'])} seeds side by side in one compiled "
            f"program; evaluated on {describe_evaluation(settings)}"
        )


def scores_by_kind(table: RunTable) -> dict[str, dict[str, list[float]]]:
    """Mean log-losses on networks and on the corpus: of each variant, of each seed."""
    found: dict[str, dict[str, list[float]]] = {}
    networks = {row["task"] for row in table.rows if row["family"].startswith("held_")}
    kinds = {
        "held-out networks": [task for task in table.tasks if task in networks],
        "corpus": [task for task in table.tasks if task not in networks],
    }
    for kind, tasks in kinds.items():
        places = [table.tasks.index(task) for task in tasks]
        if not places:
            continue
        found[kind] = {variant: [] for variant in VARIANTS}
        for optimizer in table.optimizers:
            variant = optimizer.rpartition(", seed ")[0] or optimizer
            mean = table.untuned(optimizer, "mean_log_loss")[places].mean()
            found[kind][variant].append(float(mean))
    return found
