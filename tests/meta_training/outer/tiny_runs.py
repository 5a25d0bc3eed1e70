"""Runs of meta-training that tests of the outer loop share."""

import shutil

import numpy as np

from meta_training.distribution.in_one_process import OneDevice
from meta_training.estimators import Estimate
from meta_training.inner.windows import Window
from meta_training.tasks import register_task_set
from meta_training.tasks.released.algebraic import Bowl

TINY = dict(
    task_set="trainer_test",
    init_weights="bootstrap-v1",
    block_size=2,
    min_window_steps=3,
    mean_window_steps=4.0,
    max_window_steps=6,
    mean_horizon=9.0,
    checkpoint_every=2,
    outer_steps=5,
    objective_rows=None,
)


@register_task_set("trainer_test")
def _trainer_test():
    return [Bowl(5.0), Bowl(1.0, noise_stdev=0.3)]


def windows_of(steps):
    """Settings under which each window has a number of steps."""
    kinds = ("min", "mean", "max")
    return {f"{kind}_window_steps": steps for kind in kinds}


def copy_at(trainer, outer_step, target):
    """Has a trainer copy its folder once it has saved there: what a kill leaves."""
    save = trainer.save

    def save_and_copy():
        save()
        if trainer.outer_step == outer_step:
            shutil.copytree(trainer.folder, target)

    trainer.save = save_and_copy


class Standing(OneDevice):
    """Windows whose tasks stay where they are: nothing is compiled."""

    def next_outcome(self, meta_parameters):
        reports = [
            cohort.end(self.estimate(cohort, cohort.begin().carry, meta_parameters))
            for cohort in self._cohorts
        ]
        return reports, {}

    def estimate(self, cohort, carry, meta_parameters):
        ones = np.ones_like(carry.alive)
        window = Window(carry.inner, ones, ones, None, ones, ones)
        gradient = {n: np.ones_like(value) for n, value in meta_parameters.items()}
        return Estimate(gradient, window, cohort.carried)
