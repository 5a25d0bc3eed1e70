"""An earlier learned optimizer and the hierarchical RNN on networks, in long runs."""

import math

import numpy as np

from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.statistics import LOSS_FLOOR
from meta_training.experiments.evaluated import (
    CURVES,
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
from meta_training.optimizers import trainable_optimizer
from meta_training.outer.training_config import preset

# How much longer a run is than the trajectories of meta-training.
LONGER = 10
_TRAINED = {
    "coordinatewise_rnn": "coordinate-wise RNN",
    "hierarchical_rnn": "hierarchical RNN, trained alike",
}


class EarlierOptimizers(Experiment):
    """The coordinate-wise RNN, meta-trained alike, on held-out networks."""

    name = "earlier_optimizers"
    title = "Earlier learned optimizers"
    claim = (
        "Learned optimizers before this one scale badly to larger problems and "
        "generalise little to new ones; this one does better at both."
    )
    inference = (
        "So it should also do better in runs much longer than those of its "
        "meta-training, beside an earlier one that was meta-trained alike."
    )
    budgets = {
        "small": {
            "training": TRAINING["small"],
            "meta_seed": 0,
            "sets": ["test"],
            "tasks": ["relu_perceptron"],
            "steps": LONGER * 30,
            "seeds": 1,
            "record_every": 3,
        },
        "full": {
            "training": TRAINING["full"],
            "meta_seed": 0,
            "sets": ["test"],
            "tasks": None,
            "steps": LONGER * 1000,
            "seeds": 3,
            "record_every": 100,
        },
    }

    def run(self, job):
        weights = []
        for name, label in _TRAINED.items():
            # Only one of them has a nominal rate; it is that of the preset.
            nominal = preset("default", optimizer=name).nominal
            changes = {} if nominal is None else {"nominal": nominal}
            job.log(label)
            weights += train_and_evaluate(
                job,
                trainable_optimizer(name, changes),
                label,
                [job.settings["meta_seed"]],
            )
        evaluate_into(job, [job.weights, *weights])

    def findings(self, folder, settings):
        table = RunTable(folder)
        trained = settings["steps"] // LONGER
        curves = read_csv(folder / CURVES, ("optimizer", "setting", "task"))
        rows = []
        for name in table.optimizers:
            short = [
                row["typical_loss"]
                for row in curves
                if row["optimizer"] == name and row["step"] == trained
            ]
            runs = table.default_rows(name)
            final = [row["final_log_loss"] for row in runs]
            # Of the loss at the end over the best one; one that is not finite counts
            # as infinite.
            ratios = [
                max(row["final_loss"], LOSS_FLOOR) / max(row["best_loss"], LOSS_FLOOR)
                for row in runs
            ]
            kept = max(ratio if np.isfinite(ratio) else np.inf for ratio in ratios)
            # At a log-loss of 0 the run ends where it began.
            not_halved = sum(value > math.log(0.5) for value in final)
            rows.append(
                [
                    name,
                    f"{np.exp(np.mean(np.log(short))):.3g}",
                    f"{np.mean(final):.2f}",
                    f"{not_halved} of {len(final)}",
                    f"{kept:.3g}",
                ]
            )
        header = [
            "optimizer",
            f"loss at step {trained}, geometric mean",
            f"log-loss at step {settings['steps']}, mean",
            "runs that did not halve their loss",
            f"worst final over best loss, floored at {LOSS_FLOOR:g}",
        ]
        return (
            f"{count(len(table.tasks), 'held-out network')}, {settings['steps']} "
            f"steps, {LONGER} times the mean length of a trajectory of this "
            f"meta-training ({trained}; lengths are drawn). Both RNNs were trained "
            "with the same tasks, steps, seed and trainer and were not calibrated; the "
            "hierarchical one has a nominal learning rate, an addition of this "
            f"project. `{table.optimizers[0]}` was trained otherwise.\n\n"
            + markdown_table(header, rows)
            + f"\n\nEvery run: {link(folder, RUNS)}; curves: {link(folder, CURVES)}."
        )

    def describe(self, folder, settings):
        return (
            f"{describe_training(settings['training'])}; evaluated on "
            f"{describe_evaluation(folder, settings, 'held-out network')}"
        )
