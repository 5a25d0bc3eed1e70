"""Numbers of an evaluation: log-losses, best rates, wins, interquartile means.

A log-loss is that of the released code, log(f / (f_0 + 1e-6) + 1e-6) (metarun.py and
`trainable_optimizer.py`), from -13.8 for a solved task to 0 for one that stands
still. A run that diverged would have an infinite one; here it has +13.8, as far
above the start as the 1e-6 lets a solved task be below it.
"""

from typing import NamedTuple

import numpy as np

from learned_optimizer.utils.flags import require_member
from meta_training.evaluation.comparison import Result

EPSILON = 1e-6
BOUND = -np.log(EPSILON)
# Losses below this count alike in ratios of losses.
LOSS_FLOOR = 1e-3
METRICS = ("mean log-loss", "final loss")
_BOOTSTRAPS = 2000


def log_losses(losses: np.ndarray) -> np.ndarray:
    """The log-losses of `[records, ...]` losses whose first record is the start."""
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = np.maximum(losses, 0) / (losses[0] + EPSILON)
        logs = np.log(ratios + EPSILON)
    return np.clip(np.where(np.isfinite(losses), logs, BOUND), -BOUND, BOUND)


def scores(result: Result, metric: str) -> np.ndarray:
    """`[rates, tasks, seeds]` log-losses: the mean over the run, or the last one."""
    require_member("metric", metric, METRICS)
    logs = log_losses(result.losses)
    if metric == METRICS[1]:
        return logs[-1]
    return np.trapezoid(logs, result.steps, axis=0) / (result.steps[-1] or 1)


class SelectedRates(NamedTuple):
    """A rate for each task, by one way to choose it.

    Attributes:
        name: "default", "best single rate" (or "rate of other tasks", where it was
            chosen on those) or "best rate for each task".
        rates: `[tasks]` indices.
        scores: `[tasks, seeds]` at these rates.
    """

    name: str
    rates: np.ndarray
    scores: np.ndarray


def choices(result: Result, metric: str) -> tuple[SelectedRates, ...]:
    """The default rate, one for all tasks, the best one for each.

    The one for all is the result's `single_rate`, where that was chosen elsewhere.

    Rates are chosen by the very metric, and on the very seeds, that they are then
    reported with: the comparison is generous to whoever is tuned.
    """
    table = scores(result, metric)
    by_task = table.mean(axis=2)
    tasks = np.arange(table.shape[1])
    single, label = by_task.mean(axis=1).argmin(), "best single rate"
    if result.single_rate is not None:
        single, label = result.rates.index(result.single_rate), "rate of other tasks"
    chosen = {
        "default": np.full(len(tasks), result.default_index),
        label: np.full(len(tasks), single),
        "best rate for each task": by_task.argmin(axis=0),
    }
    return tuple(
        SelectedRates(name, rates, table[rates, tasks])
        for name, rates in chosen.items()
    )


def fraction_won(own: np.ndarray, other: np.ndarray) -> float:
    """Of `[tasks, seeds]` scores: tasks whose mean is at or below the other's."""
    return float(np.mean(own.mean(axis=1) <= other.mean(axis=1)))


def won_interval(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95% interval of `fraction_won`, bootstrapped over tasks and over their seeds.

    The two share the seeds of a task, since they had the same draws.
    """
    generator = np.random.default_rng(0)
    tasks, seeds = own.shape
    fractions = []
    for _ in range(_BOOTSTRAPS):
        rows = generator.integers(tasks, size=(tasks, 1))
        columns = generator.integers(seeds, size=(tasks, seeds))
        fractions.append(fraction_won(own[rows, columns], other[rows, columns]))
    low, high = np.percentile(fractions, [2.5, 97.5])
    return float(low), float(high)


def interquartile_mean(table: np.ndarray) -> float:
    """The mean of the middle half of all numbers."""
    ordered = np.sort(np.asarray(table), axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def interval(table: np.ndarray) -> tuple[float, float]:
    """95% interval of the interquartile mean of `[tasks, seeds]`.

    Bootstrapped over the seeds of each task, as the tasks are no sample of anything
    (Agarwal et al. 2021, stratified bootstrap).
    """
    generator = np.random.default_rng(0)
    tasks, seeds = table.shape
    rows = np.arange(tasks)[:, None]
    means = [
        interquartile_mean(table[rows, generator.integers(seeds, size=(tasks, seeds))])
        for _ in range(_BOOTSTRAPS)
    ]
    # Between two infinite ones there is nothing to interpolate.
    method = "linear" if np.all(np.isfinite(means)) else "nearest"
    low, high = np.percentile(means, [2.5, 97.5], method=method)
    return float(low), float(high)


def typical_losses(losses: np.ndarray) -> np.ndarray:
    """Geometric means over the last axis, of `[records, ..., seeds]` losses.

    A loss counts as 1e-6 to 1e6 times the first one of its run.
    """
    first = np.maximum(np.asarray(losses[0], np.float64), 0) + EPSILON
    return np.exp(np.mean(np.log(first) + log_losses(losses), axis=-1))


def evaluation_ratios(result: Result) -> np.ndarray:
    """`[rates, tasks, seeds]`: how far running averages lag behind the batches' own.

    The largest ratio of the loss under running averages to 1.5 times the loss + 0.05,
    at any record of the last three quarters: above 1 they lag too far. nan for tasks
    without batch normalisation.
    """
    late = result.steps >= result.steps[-1] / 4
    ratios = result.evaluation_losses[late] / (1.5 * result.losses[late] + 0.05)
    differ = result.evaluation_losses != result.losses
    differ &= ~np.isnan(result.losses)
    has_any = differ.any(axis=(0, 1, 3))
    return np.where(has_any[:, np.newaxis], np.max(ratios, axis=0), np.nan)


class Progress(NamedTuple):
    """Whether a run kept what it had reached; all `[rates, tasks]`.

    Attributes:
        final: mean over seeds of the final loss.
        best: the same of the lowest recorded loss.
        ratio: the largest over seeds of final over best, both floored at 1e-3.
    """

    final: np.ndarray
    best: np.ndarray
    ratio: np.ndarray


def progress(result: Result) -> Progress:
    """Final against best loss; a loss that is not finite is infinite."""
    losses = np.where(np.isfinite(result.losses), result.losses, np.inf)
    final, best = losses[-1], losses.min(axis=0)
    ratio = np.maximum(final, LOSS_FLOOR) / np.maximum(best, LOSS_FLOOR)
    return Progress(final.mean(axis=-1), best.mean(axis=-1), ratio.max(axis=-1))


def sensitivity(result: Result) -> np.ndarray:
    """`[tasks]`: largest over smallest final loss among all rates, floored at 1e-3."""
    final = np.maximum(progress(result).final, LOSS_FLOOR)
    return final.max(axis=0) / final.min(axis=0)
