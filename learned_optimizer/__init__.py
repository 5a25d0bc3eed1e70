"""A learned optimizer for Keras: `model.compile(optimizer=HierarchicalRNN())`."""

from learned_optimizer.callbacks import (
    LearnedRates,
    RecomputeRunningAverages,
    SetTotalSteps,
    SwapTrueValues,
)
from learned_optimizer.hierarchical_rnn import HierarchicalRNN
from learned_optimizer.rule.config import Config
from learned_optimizer.weights import (
    Weights,
    fresh_weights,
    list_weights,
    load_weights,
    save_weights,
)

__version__ = "0.2.0"

__all__ = [
    "Config",
    "HierarchicalRNN",
    "LearnedRates",
    "RecomputeRunningAverages",
    "SetTotalSteps",
    "SwapTrueValues",
    "Weights",
    "fresh_weights",
    "list_weights",
    "load_weights",
    "save_weights",
]
