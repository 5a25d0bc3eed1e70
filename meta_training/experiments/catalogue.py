"""Every experiment, in the order of a report: an import registers it."""

# isort: off
from meta_training.experiments import earlier_optimizers
from meta_training.experiments import corpus
from meta_training.experiments import imagenet_networks
from meta_training.experiments import initial_rates
from meta_training.experiments import ablations
from meta_training.experiments import cost

# isort: on
from meta_training.experiments.registry import experiment, list_experiments

__all__ = [
    "ablations",
    "corpus",
    "cost",
    "earlier_optimizers",
    "experiment",
    "imagenet_networks",
    "initial_rates",
    "list_experiments",
]
