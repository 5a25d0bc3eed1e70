"""Stand-ins and results by hand for the tests of experiments."""

import csv
import pathlib
import statistics

import numpy as np

from meta_training.evaluation.tables import RUN_COLUMNS
from meta_training.experiments.experiment import BUDGETS, Experiment

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ["earlier_optimizers", "training_corpus", "unseen_networks"]
NAMES += ["initial_learning_rate", "ablations", "cost"]
# Of a `Job`.
FOLDERS = ("folder", "work", "cache")


class Counted(Experiment):
    """Counts its runs; stands for any experiment."""

    name = "counted"
    title = "Counted"
    claim = "A claim."
    budgets = {budget: {"seeds": 1, "steps": 5} for budget in BUDGETS}

    def __init__(self):
        self.runs = 0
        self.fails = False

    def run(self, job):
        self.runs += 1
        job.work.mkdir(parents=True, exist_ok=True)
        (job.folder / "numbers.csv").write_text(f"steps\n{job.settings['steps']}\n")
        if self.fails:
            raise RuntimeError("killed")
        (job.folder / "figure.png").write_bytes(b"picture")

    def findings(self, folder, settings):
        steps = (folder / "numbers.csv").read_text().split()[1]
        return f"It took {steps} steps, see [numbers.csv](numbers.csv)."

    def describe(self, folder, settings):
        return f"{(folder / 'numbers.csv').read_text().split()[1]} steps"


def write_runs(folder, optimizers, tasks, rates, seeds=2):
    """A `runs.csv` of random numbers; the rows, as they are in it."""
    generator = np.random.default_rng(3)
    rows = []
    for optimizer in optimizers:
        for rate in rates:
            for task in tasks:
                for seed in range(seeds):
                    best = generator.uniform(0.01, 1)
                    values = {
                        "optimizer": optimizer,
                        "rate": rate,
                        "is_default_rate": int(rate == rates[1]),
                        "family": "held_out_perceptron" if "net" in task else "bowl",
                        "task": task,
                        "seed": seed,
                        "initial_loss": 2.0,
                        "final_loss": round(best * generator.uniform(1, 3), 6),
                        "best_loss": round(best, 6),
                        "mean_log_loss": round(generator.uniform(-9, 0), 6),
                        "final_log_loss": round(generator.uniform(-9, 0), 6),
                        "test_accuracy": "nan",
                        "seconds_per_step": 0.1,
                        "final_evaluation_loss": round(best, 6),
                        "largest_evaluation_ratio": "nan",
                    }
                    assert tuple(values) == RUN_COLUMNS
                    rows.append(values)
    write_rows(folder, rows)
    return rows


def write_rows(folder, rows):
    with open(folder / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RUN_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def mean_of(rows, column, **wanted):
    return statistics.fmean(
        row[column]
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
    )


def cells(text):
    """The cells of the rows of the only table in a text."""
    rows = [line[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
