"""Against tuned baselines: on the released set of problems, and on unseen networks."""

import numpy as np

from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.comparison import LEARNING_RATES
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
