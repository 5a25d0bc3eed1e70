"""What `HierarchicalRNN` accepts: arguments and variables, checked before any work."""

import math
from typing import Any

import keras

from learned_optimizer.weights import Weights, fresh_weights, load_weights


def resolved_weights(weights, seed) -> Weights:
    """What the argument `weights` names: a name, path, `Weights`, dict or None."""
    if weights is None:
        return fresh_weights(seed=seed)
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, dict):
        return Weights.from_dict(weights)
    return load_weights(weights)


def checked_start(start: Any):
    """The initial learning rate, or its range as a tuple, or None."""
    if start is None:
        return None
    bounds = start if isinstance(start, (tuple, list)) else (start,)
    try:
        if any(isinstance(bound, (bool, str)) for bound in bounds):
            raise TypeError
        bounds = [float(bound) for bound in bounds]
        valid = (
            len(bounds) == (2 if isinstance(start, (tuple, list)) else 1)
            and all(0 < bound < math.inf for bound in bounds)
            and bounds[0] <= bounds[-1]
        )
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            "`initial_learning_rate` must be a positive number or a range (low, high) "
            f"of two with low <= high. Received: initial_learning_rate={start!r}"
        )
    return tuple(bounds) if len(bounds) == 2 else bounds[0]


def check_dtypes(variables):
    """Refuses variables that are not of real floating-point numbers."""
    for variable in variables:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if "float" not in dtype:
            name = getattr(variable, "path", variable.name)
            raise TypeError(
                "HierarchicalRNN updates variables of real floating-point numbers. "
                f"Received: {name!r} of dtype {dtype}"
            )
