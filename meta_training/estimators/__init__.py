"""Estimators of the meta-gradient, by name; a new one is a class and a line."""

from meta_training.estimators.base import (
    Estimate,
    Estimator,
    TruncatedBackpropagation,
    estimator,
    list_estimators,
    register_estimator,
)
from meta_training.estimators.parts import InParts, compiled_estimator
from meta_training.estimators.pes import PersistentEvolutionStrategies

__all__ = [
    "InParts",
    "compiled_estimator",
    "Estimate",
    "Estimator",
    "PersistentEvolutionStrategies",
    "TruncatedBackpropagation",
    "estimator",
    "list_estimators",
    "register_estimator",
]
