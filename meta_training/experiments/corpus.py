"""Against tuned baselines: on the released set of problems, and on unseen networks."""

from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.comparison import LEARNING_RATES
from meta_training.experiments.evaluated import (
    RUNS,
    RunTable,
    at_or_below,
    describe_evaluation,
    evaluate_into,
    link,
)
from meta_training.experiments.experiment import Experiment, register_experiment

_FEW_RATES = [1e-3, 1e-2, 1e-1]


class AgainstBaselines(Experiment):
    """One set of weights, untuned, against tuned baselines on some tasks."""

    baselines: tuple[str, ...]

    def run(self, job):
        evaluate_into(job, [job.weights], self.baselines)

    def findings(self, folder, settings):
        table = RunTable(folder)
        ours = table.optimizers[0]
        tasks = len(table.tasks)
        rows = []
        for baseline in table.optimizers[1:]:
            cells = [baseline]
            for column in ("mean_log_loss", "final_log_loss"):
                own = table.untuned(ours, column)
                rate = table.default_rate(baseline)
                untuned = at_or_below(own, table.untuned(baseline, column))
                tuned = at_or_below(own, table.tuned(baseline, column))
                cells += [f"{untuned} (at {rate:g})", str(tuned)]
            rows.append(cells)
        losses = {
            name: f"{table.untuned(name, 'final_log_loss').mean():.2f}"
            for name in table.optimizers
        }
        tuned = {
            name: f"{table.tuned(name, 'final_log_loss').mean():.2f}"
            for name in table.optimizers[1:]
        }
        listed = ", ".join(
            f"{name} {losses[name]} at its default rate and {tuned[name]} tuned"
            for name in tuned
        )
        return "\n\n".join(
            [
                f"The number of tasks, of {tasks}, on which untuned `{ours}` is at or "
                "below a baseline, by the log-loss averaged over the run and at its "
                "end. Tuned: at the best rate for each task, chosen by that very "
                "number.",
                markdown_table(
                    [
                        "baseline",
                        "mean, default rate",
                        "mean, tuned",
                        "end, default rate",
                        "end, tuned",
                    ],
                    rows,
                ),
                f"Mean over tasks of the log-loss at the end (lower is better): {ours} "
                f"{losses[ours]}; {listed}. Every run: {link(folder, RUNS)}.",
            ]
        )

    def describe(self, folder, settings):
        rates = settings["learning_rates"]
        return (
            f"{describe_evaluation(folder, settings)}, baselines at {len(rates)} "
            f"rates from {rates[0]:g} to {rates[-1]:g}"
        )


@register_experiment
class TrainingCorpus(AgainstBaselines):
    """Against Adam and RMSProp on the released set."""

    name = "training_corpus"
    title = "The training corpus"
    claim = (
        "On the ensemble of small, diverse problems that it was meta-trained on, the "
        "learned optimizer does better than RMSProp and Adam."
    )
    baselines = ("Adam", "RMSprop")
    budgets = {
        "small": {
            "sets": ["released"],
            "tasks": ["quadratic_20_noise0.5", "bowl_5"],
            "steps": 60,
            "seeds": 1,
            "records": 20,
            "learning_rates": _FEW_RATES,
        },
        "full": {
            "sets": ["released"],
            "tasks": None,
            "steps": 1000,
            "seeds": 5,
            "records": 24,
            "learning_rates": list(LEARNING_RATES),
        },
    }


@register_experiment
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
    budgets = {
        "small": {
            "sets": ["test"],
            "tasks": ["relu_perceptron", "convolutional_network"],
            "steps": 60,
            "seeds": 1,
            "records": 20,
            "learning_rates": _FEW_RATES,
        },
        "full": {
            "sets": ["test"],
            "tasks": None,
            "steps": 2000,
            "seeds": 5,
            "records": 60,
            "learning_rates": list(LEARNING_RATES),
        },
    }
