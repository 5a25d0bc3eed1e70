"""Estimators of the meta-gradient, by name; a new one is a class and a line.

>>> from meta_training.estimators import Estimate, Estimator, register_estimator
>>> @register_estimator("nothing")
... class Nothing(Estimator):
...     def estimate(self, meta_parameters, carry, state, num_steps, seed):
...         window = self.unroll.run(meta_parameters, carry, num_steps, seed)
...         zeros = {name: 0.0 * value for name, value in meta_parameters.items()}
...         return Estimate(zeros, window, state)
"""

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
