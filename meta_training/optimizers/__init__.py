"""The optimizers that can be meta-trained, by name.

`hierarchical_rnn` is the optimizer of this project. The others are the baselines of the
released code (tensorflow/models, research/learned_optimizer, `optimizer/`). All of them
run in the same inner loop, are trained by the same estimators and are evaluated with
the same code. To add one, write a class and register it with a decorator.
"""

from meta_training.optimizers.base import (
    TrainableOptimizer,
    list_optimizers,
    register_optimizer,
    trainable_optimizer,
)
from meta_training.optimizers.coordinatewise_rnn import CoordinatewiseRNN
from meta_training.optimizers.hierarchical import HierarchicalRule
from meta_training.optimizers.learned_rates import (
    GlobalLearningRate,
    LearningRateSchedule,
    TrainableAdam,
)
from meta_training.optimizers.weights import (
    TrainedWeights,
    as_trained,
    content_sha256,
    fresh_trained,
    load_trained,
    nominal_rate_of,
    save_trained,
    starting_weights,
)

__all__ = [
    "CoordinatewiseRNN",
    "GlobalLearningRate",
    "HierarchicalRule",
    "LearningRateSchedule",
    "TrainableAdam",
    "TrainableOptimizer",
    "TrainedWeights",
    "as_trained",
    "content_sha256",
    "fresh_trained",
    "list_optimizers",
    "load_trained",
    "nominal_rate_of",
    "register_optimizer",
    "save_trained",
    "starting_weights",
    "trainable_optimizer",
]
