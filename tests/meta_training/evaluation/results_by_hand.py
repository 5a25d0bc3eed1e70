"""Results whose numbers a test knows."""

import numpy as np

from meta_training.evaluation.comparison import Result


def result(losses, rates=(1e-3, 1e-2), steps=(0, 1, 2), default=1e-3, **changes):
    losses = np.asarray(losses, np.float32)
    _, _, tasks, _ = losses.shape
    fields = dict(
        optimizer="Adam",
        is_learned=False,
        default_rate=default,
        rates=rates,
        tasks=tuple(f"task_{index}" for index in range(tasks)),
        families=("family",) * tasks,
        steps=np.array(steps),
        losses=losses,
        evaluation_losses=losses,
        test_accuracy=np.full(losses.shape[1:], np.nan),
        seconds_per_step=np.ones(tasks),
    )
    return Result(**{**fields, **changes})


def many_tasks(count):
    """Results of a learned optimizer, that goes by its path, and of two baselines.

    The learned one ends at half the first loss on two tasks of three, at twice on the
    third; from the other rate at 0.7 times. Of the two rates of the baselines, the
    default one ends at 0.8 times the first loss; the other at 0.6 times on the first
    half of the tasks, at 1 on the rest.
    """
    families = tuple("odd" if task % 3 == 2 else "even" for task in range(count))
    losses = np.ones((3, 2, count, 2))
    losses[1:, 0] = np.where(np.array(families) == "odd", 2.0, 0.5)[:, None]
    losses[1:, 1] = 0.7
    common = dict(families=families)
    found = [result(losses, optimizer="runs/a/weights", is_learned=True, **common)]
    losses = np.ones((3, 2, count, 2))
    losses[1:, 0] = 0.8
    losses[1:, 1, : count // 2] = 0.6
    return found + [result(losses, optimizer=name, **common) for name in ("Adam", "B")]
