"""The Markdown report of an evaluation."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.markdown import markdown_table
from meta_training.evaluation.comparison import Result
from meta_training.evaluation.figures import write_figures
from meta_training.evaluation.statistics import (
    LOSS_FLOOR,
    METRICS,
    choices,
    evaluation_ratios,
    fraction_won,
    interquartile_mean,
    interval,
    progress,
    sensitivity,
    typical_losses,
    won_interval,
)
from meta_training.evaluation.tables import write_tables

# With more tasks the table of tasks stays in the CSV and families are shown.
_LISTED_TASKS = 30


def write_report(results: Sequence[Result], folder, command: str) -> pathlib.Path:
    """Writes `report.md`, its figures, `runs.csv` and `curves.csv`.

    Returns:
        The path of the report.
    """
    folder = pathlib.Path(folder)
    write_tables(results, folder)
    figures = write_figures(results, folder)
    first = results[0]
    single = any(result.single_rate is not None for result in results)
    sections = [
        "# Evaluation",
        f"    {command}",
        f"{len(first.tasks)} tasks, {first.losses.shape[-1]} seeds, "
        f"{first.steps[-1]} steps. Losses are those of the whole training set; every "
        "optimizer of a seed has the same data, start, minibatches and noise. Learned "
        "optimizers are untuned. A log-loss is log(f / (f₀ + 1e-6) + 1e-6), a diverged "
        "run counts as +13.8.",
        *(f"![{name}]({name})" for name in figures),
        "## All tasks",
        "Interquartile means over tasks and seeds with 95% intervals, bootstrapped "
        "over seeds. Tuned rates are chosen by the log-loss they are listed with (of "
        "means over tasks for the best single one), those beside a final loss by the "
        "final log-loss. Accuracy is the mean at the end, at the rate with the best "
        "final loss.",
        _summary(results),
        "## Tasks won",
        "The fraction of tasks on which the learned optimizer is at or below the "
        "other, means over seeds compared, with 95% intervals, bootstrapped over "
        "tasks and seeds. The one rate for all is "
        + ("the best on other tasks." if single else "the best on these tasks."),
        _wins(results),
        _edges(results),
        *_ratios(results),
        *_shares(results),
        *_tasks(results),
        *_running_averages(results),
        "## Final against best",
        f"Losses floored at {LOSS_FLOOR:g}; best of the recorded ones. Above 1: the "
        "run lost what it had reached. The largest ratio of all seeds counts.",
        _progress_table(results),
        *_sensitivity(results),
    ]
    path = folder / "report.md"
    text = "\n\n".join(section for section in sections if section) + "\n"
    atomic_write(path, text.encode())
    return path


def read_report(path: pathlib.Path) -> dict[str, str | list[str]]:
    """The "command" of a report and the lines of the table of each section."""
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (line,) = re.findall(r"^    (.*)$", sections[0], re.MULTILINE)[:1]
    found: dict[str, str | list[str]] = {"command": line}
    for section in sections[1:]:
        title, _, body = section.partition("\n")
        found[title] = [line for line in body.splitlines() if line.startswith("|")]
    return found


def _settings(results, positions=(0, 1, 2)):
    """Yields label, result and selected rates by each metric, of every table row.

    Positions are those of `choices`; learned optimizers have the first alone.
    """
    for result in results:
        by_metric = [choices(result, metric) for metric in METRICS]
        for position in positions[:1] if result.is_learned else positions:
            label = f"{result.optimizer}, {by_metric[0][position].name}"
            if position == 0:
                label = f"{result.optimizer}, {result.default_rate:g}"
            yield label, result, [chosen[position] for chosen in by_metric]


def _summary(results):
    rows = []
    for label, result, by_metric in _settings(results):
        cells = []
        for choice in by_metric:
            low, high = interval(choice.scores)
            middle = interquartile_mean(choice.scores)
            cells.append(f"{middle:.2f} ({low:.2f}, {high:.2f})")
        tasks = np.arange(len(result.tasks))
        final = result.losses[-1][by_metric[1].rates, tasks]
        final = np.where(np.isfinite(final), final, np.inf)
        low, high = interval(final)
        cells.append(f"{interquartile_mean(final):.4g} ({low:.4g}, {high:.4g})")
        accuracy = result.test_accuracy[by_metric[1].rates, tasks]
        has_accuracy = np.any(np.isfinite(accuracy))
        cells.append(f"{np.nanmean(accuracy):.4f}" if has_accuracy else "")
        rows.append([label, *cells])
    header = ["optimizer, rate", "mean log-loss", "final log-loss", "final loss"]
    return markdown_table([*header, "test accuracy"], rows)


def _pairs(results, cell, metrics=METRICS[1:]) -> str:
    """A row for each learned optimizer and each that comes after it, baselines at last.

    Each metric by which rates are chosen has three cells: `cell` of the learned
    optimizer and its choice, of the other and its choice.
    """
    rows = [
        [own.optimizer, other.optimizer]
        + [
            cell(own, choices(own, metric)[0], other, choice)
            for metric in metrics
            for choice in choices(other, metric)
        ]
        for place, own in enumerate(results)
        if own.is_learned
        for other in results[place + 1 :]
    ]
    prefixes = [f"{metric}: " if len(metrics) > 1 else "" for metric in metrics]
    names = ["default", "one for all", "best for each"]
    header = [prefix + name for prefix in prefixes for name in names]
    return markdown_table(["weights", "against", *header], rows) if rows else ""


def _wins(results):
    def cell(_, mine, __, choice):
        low, high = won_interval(mine.scores, choice.scores)
        return f"{fraction_won(mine.scores, choice.scores):.0%} ({low:.0%}, {high:.0%})"

    return _pairs(results, cell, METRICS)


def _ratios(results):
    """Final losses of the learned optimizers over those of the baselines."""

    def cell(own, mine, other, choice):
        ratios = _typical_final(own, mine) / _typical_final(other, choice)
        return f"{np.exp(np.mean(np.log(ratios))):.2f}, {np.median(ratios):.2f}"

    table = _pairs(results, cell)
    text = (
        f"Of geometric means over seeds, floored at {LOSS_FLOOR:g}: geometric mean and "
        "median over tasks."
    )
    return ["## Ratios of final losses", text, table] if table else []


def _typical_final(result, choice):
    tasks = np.arange(len(result.tasks))
    final = typical_losses(result.losses)[-1, choice.rates, tasks]
    return np.maximum(final, LOSS_FLOOR)


def _shares(results):
    """How soon the learned optimizers reach the final losses of the baselines."""

    def cell(own, mine, other, choice):
        tasks = np.arange(len(own.tasks))
        losses = typical_losses(own.losses)[:, mine.rates, tasks]
        reached = losses <= _typical_final(other, choice)
        is_reached = reached.any(axis=0)
        # Not the first record, which is the start.
        steps = own.steps[np.maximum(reached.argmax(axis=0), 1)]
        shares = np.where(is_reached, steps / own.steps[-1], 1.0)
        return f"{np.exp(np.mean(np.log(shares))):.2f}, {np.sum(~is_reached)}"

    table = _pairs(results, cell)
    text = (
        "After what share of all steps its final loss is reached, both geometric means "
        f"over seeds, the final one floored at {LOSS_FLOOR:g}: geometric mean over "
        "tasks, and on how many tasks it is not reached, which count as 1."
    )
    return ["## Steps to the final loss of another", text, table] if table else []


def _edges(results):
    """Where a baseline's best rate is the first or the last that was run."""
    found = []
    for result in results:
        if result.is_learned or len(result.rates) < 3:
            continue
        rates = choices(result, METRICS[1])[2].rates
        for task in np.flatnonzero((rates == 0) | (rates == len(result.rates) - 1)):
            rate = result.rates[rates[task]]
            found.append(f"{result.optimizer} on {result.tasks[task]} ({rate:g})")
    if not found:
        return ""
    return "Best at an edge of the grid of rates: " + "; ".join(found) + "."


def _tasks(results):
    names, families = results[0].tasks, np.array(results[0].families)
    header, scores, losses, accuracies = [], [], [], []
    for label, result, by_metric in _settings(results, (0, 2)):
        header.append(label.replace("best rate for each task", "best rate"))
        tasks, rates = np.arange(len(names)), by_metric[1].rates
        scores.append(by_metric[0].scores.mean(axis=1))
        losses.append(typical_losses(result.losses)[-1, rates, tasks])
        accuracies.append(result.test_accuracy[rates, tasks].mean(axis=-1))
    if len(names) > _LISTED_TASKS:
        rows = [
            [family, str(np.sum(families == family))]
            + [f"{column[families == family].mean():.2f}" for column in scores]
            for family in dict.fromkeys(results[0].families)
        ]
        table = markdown_table(["family", "tasks", *header], rows)
        return ["## Families", "Means of the mean log-loss.", table]

    def listed(columns, form):
        return [
            [name, *(f"{column[task]:{form}}" for column in columns)]
            for task, name in enumerate(names)
            if np.isfinite(columns[0][task])
        ]

    table = markdown_table(["task", *header], listed(losses, ".3g"))
    sections = ["## Final loss of each task", "Geometric means over seeds.", table]
    rows = listed(accuracies, ".4f")
    if rows:
        sections += ["## Test accuracy", markdown_table(["task", *header], rows)]
    return sections


def _running_averages(results):
    """Tasks with batch normalisation: the loss of `evaluate`, all along and at last."""
    header = ["task", "optimizer", "loss", "under running averages", "largest ratio"]
    rows = []
    for label, result, by_metric in _settings(results):
        ratios = evaluation_ratios(result)
        for task, rate in enumerate(by_metric[1].rates):
            if np.isnan(ratios[rate, task]).all():
                continue
            both = result.losses[-1], result.evaluation_losses[-1]
            ends = [np.median(losses[rate, task]) for losses in both]
            numbers = *ends, np.max(ratios[rate, task])
            rows.append([result.tasks[task], label, *(f"{x:.3g}" for x in numbers)])
    if not rows:
        return []
    return [
        "## Under running averages",
        "Networks with batch normalisation: medians over seeds of the final loss, and "
        "of the one that running averages give; the largest ratio of it to 1.5 times "
        "the loss + 0.05, at any record of the last three quarters.",
        markdown_table(header, rows),
    ]


def _progress_table(results):
    rows = []
    for label, result, by_metric in _settings(results, (0,)):
        found = progress(result)
        rates, tasks = by_metric[1].rates, np.arange(len(result.tasks))
        ratio = found.ratio[rates, tasks]
        worst = int(np.argmax(ratio))
        ends = [ratio, found.final[rates, tasks], found.best[rates, tasks]]
        largest, final, best = (f"{values[worst]:.4g}" for values in ends)
        kept = f"{np.mean(ratio <= 1.05):.0%}"
        rows.append([label, kept, largest, result.tasks[worst], final, best])
    header = ["optimizer", "tasks at 1.05 or less", "worst ratio"]
    return markdown_table([*header, "on", "final", "best"], rows)


def _sensitivity(results):
    """Final losses by initial rate, where more than one was run."""
    sections = []
    for result in results:
        if not (result.is_learned and len(result.rates) > 1):
            continue
        final, ratio = progress(result).final, sensitivity(result)
        listed = range(len(result.tasks))
        if len(result.tasks) > _LISTED_TASKS:
            listed = np.argsort(-ratio)[:_LISTED_TASKS]
        rows = [
            [
                result.tasks[task],
                *(f"{value:.3g}" for value in final[:, task]),
                f"{ratio[task]:.3g}",
            ]
            for task in listed
        ]
        header = ["task", *(f"from {rate:g}" for rate in result.rates), "ratio"]
        sections += [
            f"## Initial rates of {result.optimizer}",
            f"Final losses, means over seeds; the ratio is of losses floored at "
            f"{LOSS_FLOOR:g}.",
            markdown_table(header, rows),
        ]
    return sections
