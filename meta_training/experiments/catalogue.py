"""Every experiment, in the order of a report: an import registers it."""

from meta_training.experiments.ablations import Ablations
from meta_training.experiments.against_baselines import (
    InitialLearningRate,
    TrainingCorpus,
    UnseenNetworks,
)
from meta_training.experiments.cost import Cost
from meta_training.experiments.earlier_optimizers import EarlierOptimizers
from meta_training.experiments.experiment import (
    experiment,
    list_experiments,
    register_experiment,
)

__all__ = ["experiment", "list_experiments"]

for _experiment in (
    *(EarlierOptimizers, TrainingCorpus, UnseenNetworks),
    *(InitialLearningRate, Ablations, Cost),
):
    register_experiment(_experiment)
