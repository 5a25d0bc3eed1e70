"""The Markdown report of an evaluation."""

import pathlib
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
        "## Wall clock",
        _clock(results),
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


def _settings(results):
    """Yields label, result and selected rates by each metric, of every table row."""
    for result in results:
        by_metric = [choices(result, metric) for metric in METRICS]
        for position, choice in enumerate(by_metric[0]):
            if result.is_learned and position:
                break
            label = f"{result.optimizer}, {choice.name}"
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
    header = [
        "optimizer, rate",
        "mean log-loss",
        "final log-loss",
        "final loss",
        "test accuracy",
    ]
    return markdown_table(header, rows)


def _pairs(results):
    """Each learned optimizer with all that come after it, baselines at last."""
    return [
        (own, other)
        for place, own in enumerate(results)
        if own.is_learned
        for other in results[place + 1 :]
    ]


def _wins(results):
    rows = []
    for own, other in _pairs(results):
        cells = []
        for metric in METRICS:
            mine = choices(own, metric)[0].scores
            for choice in choices(other, metric):
                low, high = won_interval(mine, choice.scores)
                won = fraction_won(mine, choice.scores)
                cells.append(f"{won:.0%} ({low:.0%}, {high:.0%})")
        rows.append([own.optimizer, other.optimizer, *cells])
    if not rows:
        return ""
    names = ["default", "one for all", "best for each"]
    header = ["weights", "against"]
    header += [f"{metric}: {name}" for metric in METRICS for name in names]
    return markdown_table(header, rows)


def _ratios(results):
    """Final losses of the learned optimizers over those of the baselines."""
    rows = []
    for own, other in _pairs(results):
        mine = _typical_final(own, choices(own, METRICS[1])[0])
        cells = []
        for choice in choices(other, METRICS[1]):
            ratios = mine / _typical_final(other, choice)
            mean = np.exp(np.mean(np.log(ratios)))
            cells.append(f"{mean:.2f}, {np.median(ratios):.2f}")
        rows.append([own.optimizer, other.optimizer, *cells])
    if not rows:
        return []
    header = ["weights", "against", "default", "one for all", "best for each"]
    return [
        "## Ratios of final losses",
        f"Of geometric means over seeds, floored at {LOSS_FLOOR:g}: geometric mean and "
        "median over tasks.",
        markdown_table(header, rows),
    ]


def _typical_final(result, choice):
    tasks = np.arange(len(result.tasks))
    final = typical_losses(result.losses)[-1, choice.rates, tasks]
    return np.maximum(final, LOSS_FLOOR)


def _shares(results):
    """How soon the learned optimizers reach the final losses of the baselines."""
    rows = []
    for own, other in _pairs(results):
        rates = choices(own, METRICS[1])[0].rates
        losses = typical_losses(own.losses)[:, rates, np.arange(len(own.tasks))]
        cells = []
        for choice in choices(other, METRICS[1]):
            reached = losses <= _typical_final(other, choice)
            is_reached = reached.any(axis=0)
            # Not the first record, which is the start.
            steps = own.steps[np.maximum(reached.argmax(axis=0), 1)]
            shares = np.where(is_reached, steps / own.steps[-1], 1.0)
            mean = np.exp(np.mean(np.log(shares)))
            cells.append(f"{mean:.2f}, {np.sum(~is_reached)}")
        rows.append([own.optimizer, other.optimizer, *cells])
    if not rows:
        return []
    header = ["weights", "against", "default", "one for all", "best for each"]
    return [
        "## Steps to the final loss of another",
        "After what share of all steps its final loss is reached, both geometric means "
        f"over seeds, the final one floored at {LOSS_FLOOR:g}: geometric mean over "
        "tasks, and on how many tasks it is not reached, which count as 1.",
        markdown_table(header, rows),
    ]


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
    if len(results[0].tasks) > _LISTED_TASKS:
        return ["## Families", _families(results)]
    header, losses, accuracies = ["task"], [], []
    for label, result, by_metric in _settings(results):
        if "single" in label or "other tasks" in label:
            continue
        header.append(label.replace("best rate for each task", "best rate"))
        tasks = np.arange(len(result.tasks))
        rates = by_metric[1].rates
        losses.append(typical_losses(result.losses)[-1, rates, tasks])
        accuracies.append(result.test_accuracy[rates, tasks].mean(axis=-1))
    names = results[0].tasks
    rows = [
        [name, *(f"{column[task]:.3g}" for column in losses)]
        for task, name in enumerate(names)
    ]
    sections = [
        "## Final loss of each task",
        "Geometric means over seeds.",
        markdown_table(header, rows),
    ]
    rows = [
        [name, *(f"{column[task]:.4f}" for column in accuracies)]
        for task, name in enumerate(names)
        if np.isfinite(accuracies[0][task])
    ]
    if rows:
        sections += ["## Test accuracy", markdown_table(header, rows)]
    return sections


def _families(results):
    families = np.array(results[0].families)
    header, columns = ["family", "tasks"], []
    for label, _, by_metric in _settings(results):
        if "single" in label or "other tasks" in label:
            continue
        header.append(label.replace("best rate for each task", "best rate"))
        columns.append(by_metric[0].scores.mean(axis=1))
    rows = [
        [
            family,
            str(np.sum(families == family)),
            *(f"{column[families == family].mean():.2f}" for column in columns),
        ]
        for family in dict.fromkeys(results[0].families)
    ]
    return "Means of the mean log-loss.\n\n" + markdown_table(header, rows)


def _clock(results):
    header = ["task", *(result.optimizer for result in results)]
    columns = [1e6 * result.seconds_per_step for result in results]
    if len(results[0].tasks) > _LISTED_TASKS:
        rows = [["all, mean", *(f"{column.mean():.1f}" for column in columns)]]
    else:
        rows = [
            [name, *(f"{column[task]:.1f}" for column in columns)]
            for task, name in enumerate(results[0].tasks)
        ]
    return (
        "Microseconds per step of one run, recording included, when all runs of an "
        "optimizer go side by side in one loop.\n\n" + markdown_table(header, rows)
    )


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
        f"of the one that running averages give; the largest ratio of it to the loss + "
        f"{LOSS_FLOOR:g} at any record of the last three quarters.",
        markdown_table(header, rows),
    ]


def _progress_table(results):
    rows = []
    for label, result, by_metric in _settings(results):
        if "best" in label or "other tasks" in label:
            continue
        found = progress(result)
        rates, tasks = by_metric[1].rates, np.arange(len(result.tasks))
        ratio = found.ratio[rates, tasks]
        worst = int(np.argmax(ratio))
        rows.append(
            [
                label,
                f"{np.mean(ratio <= 1.05):.0%}",
                f"{ratio[worst]:.4g}",
                result.tasks[worst],
                f"{found.final[rates, tasks][worst]:.4g}",
                f"{found.best[rates, tasks][worst]:.4g}",
            ]
        )
    header = [
        "optimizer",
        "tasks at 1.05 or less",
        "worst ratio",
        "on",
        "final",
        "best",
    ]
    return markdown_table(header, rows)


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
