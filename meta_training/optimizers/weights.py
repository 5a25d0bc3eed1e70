"""Meta-trained weights of any trainable optimizer, on disk and in memory.

The files are those of `learned_optimizer.weights`: an npz of plain arrays under the
released variable names, and a card with the sha256 of the npz, the settings and the
training. The card of weights of another optimizer than the hierarchical RNN names it,
`"optimizer": "trainable_adam"`, and only this module loads them; the Keras class
`HierarchicalRNN` refuses them.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from learned_optimizer.interop.weight_files import (
    FRESH_INITIAL_LEARNING_RATE,
    read_files,
    write_files,
)
from learned_optimizer.rule.meta_parameters import with_more_inputs
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.weights import Weights, list_weights, load_weights, save_weights
from meta_training.optimizers.base import TrainableOptimizer, trainable_optimizer
from meta_training.optimizers.hierarchical import HierarchicalRule


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedWeights:
    """Meta-parameters of an optimizer and their card.

    Attributes:
        meta_parameters: `{name: float32 array}`.
        initial_learning_rate: The default one, if that is not learned.
        card: The whole card as it was read, `{}` for weights made in memory.

    Raises:
        ValueError: If the arrays are not those of the optimizer.
    """

    name: str
    optimizer: TrainableOptimizer
    meta_parameters: dict[str, np.ndarray]
    initial_learning_rate: float = FRESH_INITIAL_LEARNING_RATE
    card: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        owner, arrays = self.optimizer.name, self.meta_parameters
        wanted = {spec.name: spec.shape for spec in self.optimizer.specifications()}
        if set(arrays) != set(wanted):
            raise ValueError(
                f"the arrays of {owner} must be {sorted(wanted)}. "
                f"Received: {sorted(arrays)}"
            )
        for name, shape in wanted.items():
            array = np.asarray(arrays[name])
            if (
                array.shape != shape
                or not np.issubdtype(array.dtype, np.floating)
                or not np.all(np.isfinite(array))
            ):
                raise ValueError(
                    f"the array {name!r} of {owner} must be of finite floats in the "
                    f"shape {shape}. Received: dtype {array.dtype}, shape {array.shape}"
                    f"{'' if array.shape != shape else ', or one that is not finite'}"
                )

    @property
    def default_rate(self) -> float:
        """The learning rate in reports: the learned one, or the initial one."""
        learned = self.optimizer.own_learning_rate(self.meta_parameters)
        return self.initial_learning_rate if learned is None else learned


def content_sha256(weights: TrainedWeights) -> str:
    """A digest of optimizer, settings and numbers, independent of their file."""
    optimizer = weights.optimizer
    settings = [optimizer.name, optimizer.to_dict(), weights.initial_learning_rate]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for spec in optimizer.specifications():
        numbers = np.asarray(weights.meta_parameters[spec.name], "<f4")
        digest.update(numbers.tobytes())
    return digest.hexdigest()


def as_trained(weights: "Weights | TrainedWeights") -> TrainedWeights:
    """Converts weights of `learned_optimizer`; returns `TrainedWeights` unchanged."""
    if isinstance(weights, TrainedWeights):
        return weights
    return TrainedWeights(
        weights.name,
        HierarchicalRule(weights.config),
        weights.meta_parameters,
        weights.initial_learning_rate,
        weights.card,
    )


def fresh_trained(optimizer: TrainableOptimizer, seed=None) -> TrainedWeights:
    """Untrained weights."""
    return TrainedWeights("fresh", optimizer, optimizer.initial_meta_parameters(seed))


def load_trained(weights) -> TrainedWeights:
    """Weights of any optimizer, verified against their card.

    Args:
        weights: The name of shipped weights of the hierarchical RNN, or the path of an
            `.npz` file with its card beside it (the ending may be left out).

    Raises:
        ValueError: If a file is missing, the sha256 is not the card's, or the arrays
            are not those of the optimizer.
    """
    path = pathlib.Path(weights)
    if path.name and path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    card, arrays = {}, {}
    if str(weights) not in list_weights() and path.is_file():
        card, arrays = read_files(path)
    if card.get("optimizer", HierarchicalRule.name) == HierarchicalRule.name:
        return as_trained(load_weights(weights))
    optimizer = trainable_optimizer(str(card["optimizer"]), card["config"])
    names = {spec.released_name: spec.name for spec in optimizer.specifications()}
    return TrainedWeights(
        str(card.get("name", path.stem)),
        optimizer,
        {names.get(name, name): array for name, array in arrays.items()},
        float(card.get("default_initial_learning_rate", FRESH_INITIAL_LEARNING_RATE)),
        card,
    )


def save_trained(weights: TrainedWeights, path, card=None) -> None:
    """Writes `path` (an .npz) and its card beside it, both atomically."""
    optimizer = weights.optimizer
    if isinstance(optimizer, HierarchicalRule):
        plain = Weights(
            weights.name,
            optimizer.config,
            weights.meta_parameters,
            weights.initial_learning_rate,
            weights.card,
        )
        save_weights(plain, path, card)
        return
    arrays = {
        spec.released_name: np.asarray(weights.meta_parameters[spec.name], np.float32)
        for spec in optimizer.specifications()
    }
    entries = {
        **weights.card,
        **(card or {}),
        "name": weights.name,
        "optimizer": optimizer.name,
        "config": optimizer.to_dict(),
        "default_initial_learning_rate": weights.initial_learning_rate,
        "meta_parameters": sum(v.size for v in weights.meta_parameters.values()),
    }
    write_files(path, arrays, entries)


def starting_weights(
    name: str,
    init_weights=None,
    nominal: NominalRate | None = None,
    seed: int | None = None,
) -> TrainedWeights:
    """The initial weights of a run that trains the optimizer of that name.

    They are `init_weights`, by name or path, or else fresh ones from `seed`. Where
    `nominal` is given, it is their nominal rate: those without one are widened.

    Raises:
        ValueError: The weights are those of another optimizer.
    """
    if init_weights is None:
        settings = {} if nominal is None else {"nominal": nominal}
        return fresh_trained(trainable_optimizer(name, settings), seed)
    weights = load_trained(init_weights)
    if weights.optimizer.name != name:
        raise ValueError(
            f"init_weights must be of the optimizer to train, {name}. Received: "
            f"{str(init_weights)!r}, of {weights.optimizer.name}"
        )
    if nominal is None:
        return weights
    narrow = weights.optimizer.config
    config = dataclasses.replace(narrow, nominal=nominal)
    return dataclasses.replace(
        weights,
        optimizer=HierarchicalRule(config),
        meta_parameters=with_more_inputs(weights.meta_parameters, narrow, config),
        card={},
    )


def nominal_rate_of(init_weights) -> NominalRate | None:
    """The nominal learning rate that weights have, by name or path.

    None for fresh weights (`init_weights` None), and for those that have none.
    """
    if init_weights is None:
        return None
    optimizer = load_trained(init_weights).optimizer
    return optimizer.config.nominal if isinstance(optimizer, HierarchicalRule) else None
