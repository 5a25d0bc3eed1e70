"""Vectors of numbers that stand for meta-parameters: what a population differs in.

`PARAMETRISATIONS` names which numbers those are; 0 stands for the weights that a search
starts from. A number multiplies a whole array by its exponential, or is added to one
element or to all of an array; for the nominal rate it does so to one of its fields.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.flags import require_member, settings_of
from meta_training.optimizers import HierarchicalRule, TrainedWeights
from meta_training.optimizers.nominal_numbers import (
    PREFIX,
    RuleWithNominalNumbers,
    split_numbers,
)

# How far inside an open bound a field of the nominal rate stays.
_MARGIN = 1e-3
# An element that a readout lacks is changed as if all were of this size.
_LEAST_UNIT = 0.05
# Ends of the names of readouts.
_READOUTS = ("_weights", "_shortcut", "_coefficients")


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some numbers of the vector: `size` of them, for one array or field."""

    name: str
    kind: str
    size: int
    unit: float = 1.0


class Parametrisation:
    """What the numbers of a search are, see `PARAMETRISATIONS`.

    Attributes:
        size: How many there are.

    Args:
        weights: What 0 stands for.
        name: `scales`: one number for each array, to multiply it, or to add to it where
            it is a bias or a logit; `readouts`: all elements of the readouts and of
            the shortcut beside; both with the fields of the nominal rate. `nominal`:
            those fields alone. `all`: every element of every array.

    Raises:
        ValueError: There is no parametrisation of that name, or nothing to search.
    """

    def __init__(self, weights: TrainedWeights, name: str):
        require_member("parametrisation", name, PARAMETRISATIONS)
        self._start = weights
        self._parts = []
        for array_name, array in weights.meta_parameters.items():
            if name == "nominal" or weights.optimizer.is_fixed(array_name):
                continue
            size = float(np.sqrt(np.mean(np.square(array))))
            if name == "all":
                self._parts.append(_Part(array_name, "elements", array.size))
            elif name == "readouts" and array_name.endswith(_READOUTS):
                unit = max(size, _LEAST_UNIT)
                self._parts.append(_Part(array_name, "elements", array.size, unit))
            elif array.ndim < 2:
                self._parts.append(_Part(array_name, "shift", 1))
            elif size > 0:
                self._parts.append(_Part(array_name, "scale", 1))
        nominal = None
        if isinstance(weights.optimizer, HierarchicalRule):
            nominal = weights.optimizer.config.nominal
        if nominal is not None and name != "all":
            self._parts += [
                _Part(PREFIX + field.name, "nominal", 1)
                for field, _, kind, _, may_be_none in settings_of(NominalRate)
                if kind is float and not may_be_none
            ]
        if not self._parts:
            raise ValueError(
                f"parametrisation {name!r} needs weights that have a nominal rate. "
                f"Received: {weights.name}, which have none"
            )
        self.size = sum(part.size for part in self._parts)

    @property
    def optimizer(self):
        """The optimizer that takes what `arrays` gives."""
        optimizer = self._start.optimizer
        if isinstance(optimizer, HierarchicalRule):
            return RuleWithNominalNumbers(optimizer.config)
        return optimizer

    def arrays(self, point: np.ndarray) -> dict[str, np.ndarray]:
        """Meta-parameters and numbers of the nominal rate, from `[size]` numbers."""
        values = self._values(point)
        return {name: np.asarray(value, np.float32) for name, value in values.items()}

    def _values(self, point):
        found = dict(self._start.meta_parameters)
        begin = 0
        for part in self._parts:
            numbers = np.asarray(point[begin : begin + part.size], np.float64)
            begin += part.size
            if part.kind == "nominal":
                field = part.name.removeprefix(PREFIX)
                start = getattr(self._start.optimizer.config.nominal, field)
                found[part.name] = _changed(field, start, numbers[0])
            elif part.kind == "scale":
                found[part.name] = found[part.name] * np.exp(numbers[0])
            else:
                # One number is added to all elements.
                array = found[part.name]
                shape = array.shape if part.kind == "elements" else ()
                found[part.name] = array + part.unit * numbers.reshape(shape)
        return found

    def gradient(
        self, point: np.ndarray, gradients: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """`[size]`, from the gradients of the arrays; 0 for those that have none."""
        arrays, pieces = self._values(point), []
        for part in self._parts:
            slopes = np.asarray(gradients.get(part.name, 0.0), np.float64)
            if part.kind == "scale":
                piece = np.sum(slopes * arrays[part.name])
            elif part.kind == "shift":
                piece = np.sum(slopes)
            elif part.kind == "elements":
                piece = part.unit * slopes
            else:
                # How the search changes fields of the nominal rate has no derivative.
                piece = 0.0
            pieces.append(np.ravel(piece))
        return np.concatenate(pieces)

    def weights(self, point: np.ndarray, name: str) -> TrainedWeights:
        """The same as weights called `name`."""
        arrays, numbers = split_numbers(self._values(point))
        arrays = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
        numbers = {field: float(value) for field, value in numbers.items()}
        optimizer = self._start.optimizer
        if numbers:
            nominal = dataclasses.replace(optimizer.config.nominal, **numbers)
            config = dataclasses.replace(optimizer.config, nominal=nominal)
            optimizer = HierarchicalRule(config)
        return dataclasses.replace(
            self._start,
            name=name,
            optimizer=optimizer,
            meta_parameters=arrays,
            card={},
        )


PARAMETRISATIONS = ("scales", "readouts", "nominal", "all")


def _changed(field, start, number):
    """A field of the nominal rate, within its bounds.

    Multiplied by the exponential where it is of one sign, else added to.
    """
    (rule,) = (rule for f, rule, *_ in settings_of(NominalRate) if f.name == field)
    has_sign = rule.above == 0 or rule.below == 0 or (rule.at_least or 0) > 0
    value = start * np.exp(number) if has_sign else start + number
    low = [rule.at_least, None if rule.above is None else rule.above + _MARGIN]
    high = [rule.at_most, None if rule.below is None else rule.below - _MARGIN]
    value = max([value, *(bound for bound in low if bound is not None)])
    return min([value, *(bound for bound in high if bound is not None)])
