"""The tables of an evaluation, computed again from its `runs.csv`.

Shares no code with `meta_training.evaluation`: a report and the card that repeats it
are checked against the rows that are in the repository.
"""

import csv
import re

import numpy as np

from learned_optimizer.utils.csv_log import open_csv

FLOOR, EPSILON = 1e-3, 1e-6
METRICS = ("mean_log_loss", "final_log_loss")
TEXT = ("optimizer", "family", "task")


def read_rows(path, text=TEXT):
    """The rows of a CSV file, numbers as floats but for the columns of `text`."""
    with open_csv(path) as file:
        return [
            {k: v if k in text else float(v or "nan") for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def agrees(text, value):
    """Whether `value` rounds to `text`, of data with six digits."""
    text = text.strip()
    if text == "" or not np.isfinite(value):
        return text in ("", "nan", "inf")
    if text.endswith("%"):
        return abs(float(text[:-1]) - 100 * value) <= 0.5 + 1e-6
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return abs(float(text) - value) <= 0.5001 * unit + 1e-5 * abs(value)


def parse(lines):
    """The rows of a Markdown table as dicts by column."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


class Runs:
    """Rows of `runs.csv` files by optimizer, rate and task.

    Args:
        paths: The files.
        other_tasks: A further one, whose tasks choose the rate that is one for all.
    """

    def __init__(self, *paths, other_tasks=None):
        self._other_tasks = Runs(other_tasks) if other_tasks else None
        rows = [row for path in paths for row in read_rows(path)]
        self.tasks = list(dict.fromkeys(row["task"] for row in rows))
        self.families = {row["task"]: row["family"] for row in rows}
        self.default, self._runs, self._chosen = {}, {}, {}
        for row in rows:
            name, rate, task = (row[key] for key in ("optimizer", "rate", "task"))
            self._runs.setdefault(name, {}).setdefault(rate, {}).setdefault(
                task, []
            ).append(row)
            if row["is_default_rate"]:
                self.default[name] = rate

    def values(self, name, rate, task, column):
        """`[seeds]` of one column."""
        return np.array([row[column] for row in self._runs[name][rate][task]])

    def all_rates(self, name):
        """The rates that an optimizer was run at."""
        return list(self._runs[name])

    def rates(self, label, metric):
        """The optimizer of a label, and the rate of each task that it stands for."""
        if (label, metric) not in self._chosen:
            self._chosen[label, metric] = self._choose(label, metric)
        return self._chosen[label, metric]

    def _choose(self, label, metric):
        # A name may have commas: "default-v4, horizon known".
        name = max(
            (n for n in self._runs if f"{label}, ".startswith(f"{n}, ")), key=len
        )
        how = label.removeprefix(name).removeprefix(", ")
        others = self._other_tasks
        if how in ("rate of other tasks", "one for all") and others:
            if name not in others._runs:  # a learned optimizer
                return name, [self.default[name]] * len(self.tasks)
            (rate, *_) = others.rates(f"{name}, one for all", METRICS[1])[1]
            return name, [rate] * len(self.tasks)
        means = {
            rate: [self.values(name, rate, task, metric).mean() for task in self.tasks]
            for rate in self._runs[name]
        }
        if how in ("best single rate", "one for all"):
            best = min(means, key=lambda rate: np.mean(means[rate]))
            return name, [best] * len(self.tasks)
        if how.startswith("best"):
            return name, [
                min(means, key=lambda rate: means[rate][i])
                for i in range(len(self.tasks))
            ]
        return name, [self.default[name]] * len(self.tasks)

    def table(self, label, metric, column=None):
        """`[tasks, seeds]` of a column, by default the metric, at chosen rates."""
        name, rates = self.rates(label, metric)
        return np.array(
            [
                self.values(name, rate, task, column or metric)
                for rate, task in zip(rates, self.tasks, strict=True)
            ]
        )

    def typical(self, label):
        """`[tasks]` geometric means of final losses, at least 1e-6 of the first."""
        first = self.table(label, METRICS[1], "initial_loss") + EPSILON
        return np.exp(np.mean(np.log(first) + self.table(label, METRICS[1]), axis=1))


def interquartile_mean(values):
    ordered = np.sort(values, axis=None)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean()


def wrong_cells(title, lines, runs):
    """The cells of a table that its runs do not give: `(row, column, text, value)`."""
    for row in parse(lines):
        first, *columns = row
        for column in columns:
            for text, value in _values(title, row, column, runs):
                if not agrees(text, value):
                    yield row[first], column, text, value


def _values(title, row, column, runs):
    text = row[column]
    if title == "All tasks":
        label = row["optimizer, rate"]
        if column == "test accuracy":
            accuracy = runs.table(label, METRICS[1], "test_accuracy")
            return [(text, np.nanmean(accuracy) if text else np.nan)]
        metric, chosen_by = {
            "mean log-loss": METRICS[:1] * 2,
            "final log-loss": METRICS[1:] * 2,
            "final loss": ("final_loss", METRICS[1]),
        }[column]
        table = runs.table(label, chosen_by, metric)
        middle, low, high = map(float, re.findall(r"[-+.\de]+", text))
        assert low <= middle <= high
        return [(text.partition(" ")[0], interquartile_mean(table))]
    if title == "Tasks won":
        if column == "against":
            return []
        metric = METRICS["final" in column]
        how = {
            "default": "",
            "best single": "one for all",
            "one for all": "one for all",
        }
        other = f"{row['against']}, {how.get(column.partition(': ')[2], 'best')}"
        own = runs.table(row["weights"], metric).mean(axis=1)
        text = text.partition(" ")[0]
        return [(text, np.mean(own <= runs.table(other, metric).mean(axis=1)))]
    if title == "Families":
        tasks = [t for t in runs.tasks if runs.families[t] == row["family"]]
        if column == "tasks":
            return [(text, len(tasks))]
        means = runs.table(column, METRICS[0]).mean(axis=1)
        return [(text, np.mean([means[runs.tasks.index(t)] for t in tasks]))]
    if title == "Final against best":
        label = row["optimizer"]
        final = runs.table(label, METRICS[1], "final_loss")
        best = runs.table(label, METRICS[1], "best_loss")
        ratio = np.max(np.maximum(final, FLOOR) / np.maximum(best, FLOOR), axis=1)
        worst = runs.tasks.index(row["on"])
        return {
            "tasks at 1.05 or less": [(text, np.mean(ratio <= 1.05))],
            "worst ratio": [(text, ratio.max()), (text, ratio[worst])],
            "on": [],
            "final": [(text, final[worst].mean())],
            "best": [(text, best[worst].mean())],
        }[column]
    if title == "Ratios of final losses":
        if column == "against":
            return []
        how = {"default": "", "one for all": "one for all"}.get(column, "best")
        labels = row["weights"], f"{row['against']}, {how}"
        own, other = (np.maximum(runs.typical(label), FLOOR) for label in labels)
        mean, median = text.split(", ")
        ratios = own / other
        return [(mean, np.exp(np.log(ratios).mean())), (median, np.median(ratios))]
    task = runs.tasks.index(row["task"])
    if title == "Under running averages":
        columns = {
            "loss": "final_loss",
            "under running averages": "final_evaluation_loss",
        }
        if column == "optimizer":
            return []
        name = columns.get(column, "largest_evaluation_ratio")
        values = runs.table(row["optimizer"], METRICS[1], name)[task]
        return [(text, np.median(values) if column in columns else values.max())]
    if title.startswith("Initial rates of "):
        name = title.removeprefix("Initial rates of ")
        final = {
            rate: runs.values(name, rate, row["task"], "final_loss").mean()
            for rate in runs.all_rates(name)
        }
        if column != "ratio":
            return [(text, final[float(column.removeprefix("from "))])]
        floored = np.maximum(list(final.values()), FLOOR)
        return [(text, floored.max() / floored.min())]
    if title == "Final loss of each task":
        return [(text, runs.typical(column)[task])]
    assert title == "Test accuracy", title
    return [(text, runs.table(column, METRICS[1], "test_accuracy")[task].mean())]
