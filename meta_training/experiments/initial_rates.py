"""How much the initial learning rate matters, compared with the rate of Adam."""

import numpy as np

from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.figures import save_figure, subplots
from meta_training.evaluation.statistics import LOSS_FLOOR
from meta_training.experiments.evaluated import (
    RUNS,
    RunTable,
    describe_evaluation,
    evaluate_into,
    link,
)
from meta_training.experiments.experiment import Experiment


class InitialLearningRate(Experiment):
    """Untuned runs from initial rates over many decades; Adam at the same rates."""

    name = "initial_learning_rate"
    title = "The choice of the initial learning rate"
    claim = "Nothing about initial learning rates, in the parts of it that we know."
    inference = (
        "The learned optimizer adapts its learning rates by itself, and the released "
        "code meta-trains it from rates drawn over four decades, so where they start "
        "should hardly matter."
    )
    budgets = {
        "small": {
            "sets": ["test"],
            "tasks": ["relu_perceptron"],
            "steps": 60,
            "seeds": 1,
            "records": 20,
            "initial_rates": [1e-4, 1e-2],
            "learning_rates": [1e-4, 1e-3, 1e-2],
        },
        "full": {
            "sets": ["test"],
            "tasks": None,
            "steps": 2000,
            "seeds": 3,
            "records": 60,
            "initial_rates": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
            "learning_rates": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
        },
    }

    def run(self, job):
        evaluate_into(job, [job.weights], ("Adam",), figures=False)
        table = RunTable(job.folder)
        figure, axes = subplots(len(table.optimizers))
        for axis, optimizer in zip(axes, table.optimizers, strict=True):
            for task in table.tasks:
                found = table.by_rate(optimizer, task, "final_loss")
                axis.plot(
                    found.keys(), found.values(), "o-", label=task.replace("_", " ")
                )
            axis.set(xscale="log", yscale="log", title=optimizer)
            learned = optimizer == table.optimizers[0]
            axis.set_xlabel("initial learning rate" if learned else "learning rate")
        low = min(axis.get_ylim()[0] for axis in axes)
        high = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(max(low, 1e-6), high)
        axes[0].set_ylabel(f"training loss after {job.settings['steps']} steps")
        save_figure(figure, axes[0], job.folder / "initial_rates.png")

    def findings(self, folder, settings):
        table = RunTable(folder)
        rows = []
        for task in table.tasks:
            cells = [task]
            for optimizer in table.optimizers:
                losses = np.array(
                    list(table.by_rate(optimizer, task, "final_loss").values())
                )
                losses = np.where(np.isfinite(losses), losses, np.inf)
                losses = np.maximum(losses, LOSS_FLOOR)
                cells += [f"{losses.min():.3g}", f"{losses.max():.3g}"]
                cells.append(f"{losses.max() / losses.min():.3g}")
            rows.append(cells)
        header = ["network"]
        for optimizer in table.optimizers:
            header += [f"{optimizer}: best", "worst", "ratio"]
        rates, adams = (
            len(table.by_rate(optimizer, table.tasks[0], "final_loss"))
            for optimizer in table.optimizers
        )
        return (
            f"Final losses from {rates} initial rates, and Adam's at "
            f"{adams} learning rates; losses floored at "
            f"{LOSS_FLOOR:g}, means over draws.\n\n"
            + markdown_table(header, rows)
            + f"\n\nEvery run: {link(folder, RUNS)}."
        )

    def describe(self, folder, settings):
        rates = settings["initial_rates"]
        return (
            f"{describe_evaluation(folder, settings, 'held-out network')}, initial "
            f"rates from {rates[0]:g} to {rates[-1]:g}"
        )
