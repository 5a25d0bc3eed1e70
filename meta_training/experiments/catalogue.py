"""Every experiment: an import registers it."""

from meta_training.experiments import (
    ablations,
    corpus,
    cost,
    earlier_optimizers,
    initial_rates,
)
from meta_training.experiments.experiment import experiment, list_experiments

__all__ = [
    "ablations",
    "corpus",
    "cost",
    "earlier_optimizers",
    "experiment",
    "initial_rates",
    "list_experiments",
]
