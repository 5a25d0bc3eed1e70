"""The data of an evaluation as CSV: one row a run, and the curves of reports."""

import pathlib
from collections.abc import Sequence

import numpy as np

from learned_optimizer.utils.csv_log import read_csv, write_csv
from meta_training.evaluation.comparison import Result
from meta_training.evaluation.statistics import (
    METRICS,
    choices,
    evaluation_ratios,
    scores,
    typical_losses,
)

RUN_COLUMNS = (
    *("optimizer", "rate", "is_default_rate", "family", "task", "seed"),
    *("initial_loss", "final_loss", "best_loss", "mean_log_loss", "final_log_loss"),
    *("test_accuracy", "seconds_per_step"),
    # Under the running averages of batch normalisation.
    *("final_evaluation_loss", "largest_evaluation_ratio"),
)
CURVE_COLUMNS = (
    *("optimizer", "setting", "rate", "task", "step"),
    *("typical_loss", "lowest_loss", "highest_loss"),
)


def write_tables(results: Sequence[Result], folder: pathlib.Path) -> None:
    """Writes `runs.csv`, every run, and `curves.csv`, the settings of the figures."""
    write_csv(folder / "runs.csv", RUN_COLUMNS, _run_rows(results))
    write_csv(folder / "curves.csv", CURVE_COLUMNS, _curve_rows(results))


def best_single_rates(path: pathlib.Path | str) -> dict[str, float]:
    """The rate of each baseline with the least mean final log-loss, in a `runs.csv`.

    Raises:
        ValueError: The file is no such table.
    """
    sums: dict[tuple[str, float], list[float]] = {}
    try:
        for row in read_csv(pathlib.Path(path), ("optimizer", "family", "task")):
            key = row["optimizer"], row["rate"]
            sums.setdefault(key, []).append(row["final_log_loss"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"rates must come from the runs.csv of an evaluation. Received: {path}, "
            f"which cannot be read ({error})"
        ) from error
    best: dict[str, tuple[float, float]] = {}
    for (name, rate), values in sums.items():
        mean = float(np.mean(values))
        best[name] = min(best.get(name, (np.inf, rate)), (mean, rate))
    return {name: rate for name, (_, rate) in best.items()}


def _run_rows(results):
    for result in results:
        mean, final = (scores(result, metric) for metric in METRICS)
        best = np.min(np.where(np.isnan(result.losses), np.inf, result.losses), axis=0)
        ratios = evaluation_ratios(result)
        for index in np.ndindex(mean.shape):
            rate, task, seed = index
            yield (
                *(result.optimizer, result.rates[rate]),
                int(rate == result.default_index),
                *(result.families[task], result.tasks[task], seed),
                *(result.losses[0][index], result.losses[-1][index], best[index]),
                *(mean[index], final[index], result.test_accuracy[index]),
                *(result.seconds_per_step[task], result.evaluation_losses[-1][index]),
                ratios[index],
            )


def _curve_rows(results):
    for result in results:
        typical = typical_losses(result.losses)
        chosen = choices(result, METRICS[1])
        for choice in chosen[:1] if result.is_learned else chosen:
            for task, rate in enumerate(choice.rates):
                losses = result.losses[:, rate, task]
                for record, step in enumerate(result.steps):
                    yield (
                        result.optimizer,
                        choice.name,
                        result.rates[rate],
                        result.tasks[task],
                        int(step),
                        typical[record, rate, task],
                        losses[record].min(),
                        losses[record].max(),
                    )
