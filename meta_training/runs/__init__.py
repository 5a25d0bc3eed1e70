"""Many training runs in one compiled loop: learning rates, seeds, optimizers."""

from meta_training.runs.baselines import BASELINES
from meta_training.runs.draws import Draws, draw_runs, record_steps
from meta_training.runs.learned import LearnedRuns
from meta_training.runs.loop import Runs, TrainingLoop

__all__ = [
    "BASELINES",
    "Draws",
    "LearnedRuns",
    "Runs",
    "TrainingLoop",
    "draw_runs",
    "record_steps",
]
