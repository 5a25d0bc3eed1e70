"""Held-out networks, trained during meta-training, to choose checkpoints by.

The meta-training loss says nothing about networks: an optimizer that is excellent on
its task set can be worthless on a perceptron. So at regular intervals the `validation`
networks, on data and in shapes that no task has, are trained from several initial
learning rates, and the checkpoint with the lowest `score` is kept.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from meta_training.held_out import network_group
from meta_training.optimizers import TrainableOptimizer
from meta_training.runs import LearnedRuns, TrainingLoop, draw_runs, record_steps
from meta_training.tasks.base import Task

INITIAL_LEARNING_RATES = (1e-4, 1e-3, 1e-2)
# A network of this many parameters or more is large: one initial rate, fewer steps.
LARGE = 500_000
# Lower losses count alike: there an optimizer only overfits the training set.
LOSS_FLOOR = 1e-3
# A loss that is not finite, or larger, counts as this many times the first one.
DIVERGED_FACTOR = 1e3
_RECORDS = 24
_SEED = 2017


class Validator:
    """Trains networks with meta-parameters and scores the result.

    The loops are compiled at the first call and reused by later ones.

    Args:
        optimizer: The optimizer of the meta-parameters.
        networks: The networks to train. Defaults to the `validation` group.
        initial_learning_rates: Initial learning rates, one run for each. A network of
            `LARGE` parameters or more is trained from the middle one alone, and so is
            any network if the optimizer has learned its initial rates.
        steps: Inner steps for a network. Defaults to 1,500.
        large_steps: Inner steps for a large one. Defaults to 120.
    """

    def __init__(
        self,
        optimizer: TrainableOptimizer,
        networks: Sequence[Task] | None = None,
        initial_learning_rates: Sequence[float] = INITIAL_LEARNING_RATES,
        steps: int = 1500,
        large_steps: int = 120,
    ):
        rates = tuple(initial_learning_rates)
        # Of each network: name, rates, when losses are recorded, loop.
        self._loops = []
        for network in networks or network_group("validation"):
            is_large = network.parameter_count >= LARGE
            own_rates = rates
            if is_large or not optimizer.takes_initial_rates:
                own_rates = (sorted(rates)[len(rates) // 2],)
            own_steps = large_steps if is_large else steps
            runs = LearnedRuns(optimizer, network.parameter_shapes, len(own_rates))
            loop = TrainingLoop(
                network,
                runs,
                np.zeros(len(own_rates)),
                draw_runs([network], [_SEED], own_steps),
            )
            marks = record_steps(own_steps, _RECORDS)
            self._loops.append((network.name, own_rates, marks, loop))

    def __call__(self, meta_parameters: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Trains every network.

        Returns:
            `score`, lower is better: the mean over networks and their initial rates of
            log(loss + 1e-3), half at the end and half along the run, plus `regression`,
            the difference between the end and the best recorded value.
            `final_log_loss`, `mean_log_loss`, `regression` and `diverged` (a fraction
            of the runs) are its components, and `NETWORK/rate_RATE/step_STEP` are the
            losses themselves.
        """
        results, summaries = {}, []
        for name, rates, marks, loop in self._loops:
            arguments = {
                "meta_parameters": dict(meta_parameters),
                "log_learning_rate": np.log(rates).astype(np.float32),
            }
            losses = loop(marks, arguments).losses
            summaries.append(summarise(marks, losses))
            # At about a tenth, a third and all of the steps.
            shown = sorted(
                {
                    int(np.abs(marks - fraction * marks[-1]).argmin())
                    for fraction in (0.1, 1 / 3, 1)
                }
            )
            results |= {
                f"{name}/rate_{rate:g}/step_{marks[mark]}": float(losses[mark, run])
                for run, rate in enumerate(rates)
                for mark in shown
            }
        totals = {
            name: float(np.mean([summary[name] for summary in summaries]))
            for name in summaries[0]
        }
        return {**totals, **results}


def summarise(steps: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """The score of one network and its parts, see `Validator.__call__`.

    Of `[records, runs]` losses at `[records]` steps, which ascend from 0.
    """
    losses = np.asarray(losses, np.float64)
    # The optimizer is not to blame for a start that is not finite; it counts as 1.
    first = np.where(np.isfinite(losses[0]), np.abs(losses[0]), 1.0) + LOSS_FLOOR
    diverged = ~np.isfinite(losses) | (losses > DIVERGED_FACTOR * first)
    losses = np.where(diverged, DIVERGED_FACTOR * first, losses)
    log_losses = np.log(np.maximum(losses, 0) + LOSS_FLOOR)
    final = log_losses[-1]
    along = np.trapezoid(log_losses, steps, axis=0) / max(steps[-1] - steps[0], 1)
    regression = final - log_losses.min(axis=0)
    return {
        "score": float(np.mean(0.5 * final + 0.5 * along + regression)),
        "final_log_loss": float(final.mean()),
        "mean_log_loss": float(along.mean()),
        "regression": float(regression.mean()),
        "diverged": float(diverged.any(axis=0).mean()),
    }
