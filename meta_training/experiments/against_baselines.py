"""The shipped weights beside baselines at several rates.

On the released set of problems, on unseen networks, and from initial rates over many
decades.
"""

import numpy as np

from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.comparison import LEARNING_RATES
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


def _budgets(name, few_tasks, steps, records):
    """A few runs of some tasks of a set, or five draws of all at every rate."""
    return {
        "small": {
            "sets": [name],
            "tasks": few_tasks,
            "steps": 60,
            "seeds": 1,
            "records": 20,
            "learning_rates": [1e-3, 1e-2, 1e-1],
        },
        "full": {
            "sets": [name],
            "tasks": None,
            "steps": steps,
            "seeds": 5,
            "records": records,
            "learning_rates": list(LEARNING_RATES),
        },
    }


class AgainstBaselines(Experiment):
    """One set of weights, untuned, against tuned baselines on some tasks."""

    baselines: tuple[str, ...]

    def run(self, job):
        evaluate_into(job, [job.weights], self.baselines)

    def findings(self, folder, settings):
        table = RunTable(folder)
        ours = table.optimizers[0]
        rows = []
        for baseline in table.optimizers[1:]:
            cells = [baseline]
            for column in ("mean_log_loss", "final_log_loss"):
                own = table.untuned(ours, column)
                rate = table.default_rate(baseline)
                untuned = np.sum(own <= table.untuned(baseline, column))
                tuned = np.sum(own <= table.tuned(baseline, column))
                cells += [f"{untuned} (at {rate:g})", str(tuned)]
            rows.append(cells)
        column = "final_log_loss"
        listed = ", ".join(
            f"{name} {table.untuned(name, column).mean():.2f} at its default rate and "
            f"{table.tuned(name, column).mean():.2f} tuned"
            for name in table.optimizers[1:]
        )
        header = ["baseline"]
        for when in ("mean", "end"):
            header += [f"{when}, default rate", f"{when}, tuned"]
        return (
            f"The number of tasks, of {len(table.tasks)}, on which untuned `{ours}` is "
            "at or below a baseline, by the log-loss averaged over the run and at its "
            "end. Tuned: at the best rate for each task, chosen by that very number."
            f"\n\n{markdown_table(header, rows)}\n\n"
            f"Mean over tasks of the log-loss at the end (lower is better): {ours} "
            f"{table.untuned(ours, column).mean():.2f}; {listed}. Every run: "
            f"{link(folder, RUNS)}."
        )

    def describe(self, folder, settings):
        rates = settings["learning_rates"]
        return (
            f"{describe_evaluation(folder, settings)}, baselines at {len(rates)} "
            f"rates from {rates[0]:g} to {rates[-1]:g}"
        )


class TrainingCorpus(AgainstBaselines):
    """Against Adam and RMSProp on the released set."""

    name = "training_corpus"
    title = "The training corpus"
    claim = (
        "On the ensemble of small, diverse problems that it was meta-trained on, the "
        "learned optimizer does better than RMSProp and Adam."
    )
    baselines = ("Adam", "RMSprop")
    budgets = _budgets("released", ["quadratic_20_noise0.5", "bowl_5"], 1000, 24)


class UnseenNetworks(AgainstBaselines):
    """Against four baselines on held-out networks."""

    name = "unseen_networks"
    title = "Unseen small networks"
    claim = (
        "On small convolutional networks the learned optimizer does as well as RMSProp "
        "and Adam or better, though no neural network was among the problems that it "
        "was meta-trained on."
    )
    inference = (
        "So it should on small networks of other kinds, too, and untuned beside tuned "
        "baselines."
    )
    baselines = ("Adam", "RMSprop", "SGD momentum", "AdamW cosine")
    budgets = _budgets("test", ["relu_perceptron", "convolutional_network"], 2000, 60)


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
