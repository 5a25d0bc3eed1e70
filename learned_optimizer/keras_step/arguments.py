"""What `HierarchicalRNN` accepts: arguments and variables, checked before any work."""

import math
import numbers
import warnings
from typing import Any

import keras
from keras import ops

from learned_optimizer.weights import Weights, fresh_weights, load_weights

STATE_DTYPES = ("float32", "bfloat16")


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


def checked_seed(seed: Any) -> int | None:
    """The seed as a Python integer, or None."""
    if seed is None:
        return None
    is_integer = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not is_integer or seed < 0:
        raise ValueError(
            f"`seed` must be an integer of 0 or more, or None. Received: seed={seed!r}"
        )
    return int(seed)


def checked_jit_compile(jit_compile: Any) -> bool | str:
    """Who compiles the step."""
    if not isinstance(jit_compile, bool) and jit_compile != "auto":
        raise ValueError(
            "`jit_compile` must be True, False or 'auto'. "
            f"Received: jit_compile={jit_compile!r}"
        )
    return jit_compile


def checked_state_dtype(state_dtype: Any) -> str:
    """The type of what is stored of each parameter."""
    if not isinstance(state_dtype, str) or state_dtype not in STATE_DTYPES:
        raise ValueError(
            "`state_dtype` must be 'float32' or 'bfloat16'. "
            f"Received: state_dtype={state_dtype!r}"
        )
    return state_dtype


def checked_total_steps(total_steps: Any, config=None, done: int = 0) -> int | None:
    """The number of updates of the whole training as a Python integer, or None.

    Args:
        total_steps: What was given.
        config: The architecture that is to follow it, if it is known.
        done: Updates that were made already.
    """
    if total_steps is None:
        return None
    is_integer = isinstance(total_steps, numbers.Integral)
    if not is_integer or isinstance(total_steps, bool) or total_steps < 1:
        raise ValueError(
            "`total_steps` must be a positive integer or None. "
            f"Received: total_steps={total_steps!r}"
        )
    if total_steps < done:
        raise ValueError(
            "`total_steps` must be at least the number of updates that were made "
            f"already, {done}. Received: total_steps={total_steps}"
        )
    if config is not None and config.nominal is None:
        raise ValueError(
            "`total_steps` needs weights with a nominal learning rate, which is what "
            "follows a schedule (`default` has one, `released` has none). "
            f"Received: total_steps={total_steps} and weights without one"
        )
    return int(total_steps)


class SmallLearningRateWarning(UserWarning):
    """A learning rate that is one of Adam's, not a factor near 1."""


# Below it hardly anybody means a factor of what was learned.
SMALLEST_USUAL_RATE = 0.05
_STEPS_LOOKED_AT = (0, 10, 100, 1_000, 10_000, 100_000)


def warn_of_small_rate(learning_rate):
    """Warns where a number, or the largest value of a schedule, is below 0.05."""
    rate = learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        try:
            rate = max(
                float(ops.convert_to_numpy(rate(step))) for step in _STEPS_LOOKED_AT
            )
        except Exception:
            # A schedule may need what is not there yet; nothing rests on this.
            return
    if callable(rate) or not rate < SMALLEST_USUAL_RATE:
        return
    warnings.warn(
        "`learning_rate` of HierarchicalRNN multiplies a step whose length is learned. "
        "It should be near 1, which is the default: with one of Adam's the training "
        f"is that many times too slow. Received: learning_rate={learning_rate!r}, "
        f"which is at most {rate:g}",
        SmallLearningRateWarning,
        stacklevel=3,
    )


def check_shapes(variables):
    """Refuses variables whose size is not known."""
    for variable in variables:
        shape = variable.shape
        if getattr(shape, "rank", 0) is None or None in tuple(shape):
            raise ValueError(
                "The shape of a variable must be fully defined. Received: "
                f"{_name(variable)!r} of shape {shape}"
            )


def check_dtypes(variables):
    """Refuses variables that are not of real floating-point numbers."""
    for variable in variables:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if "float" not in dtype:
            raise TypeError(
                "HierarchicalRNN updates variables of real floating-point numbers. "
                f"Received: {_name(variable)!r} of dtype {dtype}"
            )


def check_pairs(gradients, variables):
    """Refuses gradients of other shapes than their variables', and variables twice.

    Sizes that are not known yet may be any.
    """
    check_shapes(variables)
    seen = set()
    for gradient, variable in zip(gradients, variables, strict=True):
        if id(variable) in seen:
            raise ValueError(
                f"`apply` takes each variable once. Received: {_name(variable)!r} twice"
            )
        seen.add(id(variable))
        shape = getattr(gradient, "shape", None)
        if shape is None or getattr(shape, "rank", 0) is None:
            continue
        shape, wanted = tuple(shape), tuple(variable.shape)
        if len(shape) != len(wanted) or any(
            size not in (None, other) for size, other in zip(shape, wanted, strict=True)
        ):
            raise ValueError(
                "A gradient must have the shape of its variable. Received: one of "
                f"shape {shape} for {_name(variable)!r} of shape {wanted}"
            )


def _name(variable):
    return getattr(variable, "path", variable.name)
