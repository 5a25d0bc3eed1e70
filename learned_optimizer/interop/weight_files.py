"""Meta-trained weights as files: an `.npz` and its card beside it.

`NAME.npz` holds the arrays under the released variable names (no pickle), and
`NAME.json` is their card: the architecture, the default start, how they were trained,
and the sha256 of the npz, without which nothing is loaded. The npz holds the
architecture too, so that equal numbers under another one have another sha256 (those
before `default-v2` do not).
"""

import base64
import dataclasses
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import (
    from_released_names,
    initial_meta_parameters,
    specifications,
    to_released_names,
)
from learned_optimizer.utils.arrays import arrays_from_npz
from learned_optimizer.utils.atomic_write import atomic_write_all

# Where learning rates of fresh weights start; the released command line's default
# range is wider, but untrained weights keep what they start from.
FRESH_INITIAL_LEARNING_RATE = 1e-3
# The member of the npz with the architecture, as the bytes of a JSON text.
_CONFIG = "config"


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Meta-parameters with what is known of them.

    Attributes:
        name: Versioned name of shipped weights, or what a user calls them.
        config: Their architecture.
        meta_parameters: `{name: float32 array}`, see `meta_parameters.py`.
        initial_learning_rate: Where learning rates start by default.
        card: The whole card as it was read, `{}` for weights made in memory.
        shipped: Whether they are found by name alone, wherever the package is.

    Raises:
        ValueError: If the arrays do not fit the config, or the rate is not positive.
    """

    name: str
    config: Config
    meta_parameters: dict[str, np.ndarray]
    initial_learning_rate: float = FRESH_INITIAL_LEARNING_RATE
    card: dict[str, Any] = dataclasses.field(default_factory=dict)
    shipped: bool = False

    def __post_init__(self):
        rate = self.initial_learning_rate
        is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if not is_number or not 0 < rate < math.inf:
            raise ValueError(
                "The initial learning rate of weights must be a positive number. "
                f"Received: {rate!r}"
            )
        names = {spec.name: spec.released_name for spec in specifications(self.config)}
        arrays = {names.get(n, n): array for n, array in self.meta_parameters.items()}
        from_released_names(self.config, arrays)

    def to_dict(self) -> dict[str, Any]:
        """Name, architecture and the numbers themselves, as JSON types."""
        numbers = self.to_flat().astype("<f4").tobytes()
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "initial_learning_rate": self.initial_learning_rate,
            "float32_base64": base64.b64encode(numbers).decode(),
        }

    @classmethod
    def from_dict(cls, values) -> "Weights":
        """The reverse of `to_dict`.

        Raises:
            ValueError: If a key is missing or the numbers do not fit the config.
            TypeError: If `values` or its config is no mapping.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                f"Serialized weights must be a mapping. Received: {values!r}"
            )
        wanted = {"name", "config", "initial_learning_rate", "float32_base64"}
        if set(values) != wanted:
            raise ValueError(
                f"Serialized weights must have the keys {sorted(wanted)}. "
                f"Received: {sorted(values)}"
            )
        try:
            content = base64.b64decode(values["float32_base64"], validate=True)
            flat = np.frombuffer(content, "<f4")
        except (ValueError, TypeError) as error:
            raise ValueError(
                "`float32_base64` of serialized weights must be the base64 of float32 "
                f"numbers. Received: {error}"
            ) from error
        config = Config.from_dict(values["config"])
        start = values["initial_learning_rate"]
        return cls.from_flat(values["name"], config, flat, start)

    def to_flat(self) -> np.ndarray:
        """`[numbers]` float32, all arrays in the order of `specifications(config)`."""
        arrays = [
            np.ravel(self.meta_parameters[specification.name])
            for specification in specifications(self.config)
        ]
        return np.concatenate(arrays).astype(np.float32)

    @classmethod
    def from_flat(
        cls, name, config: Config, numbers, initial_learning_rate, card=None
    ) -> "Weights":
        """The reverse of `to_flat`.

        Raises:
            ValueError: If there are not as many as the config has.
        """
        found = specifications(config)
        counts = [math.prod(specification.shape) for specification in found]
        if np.shape(numbers) != (sum(counts),):
            raise ValueError(
                f"Weights of this config have {sum(counts)} numbers. "
                f"Received: {np.size(numbers)}"
            )
        parts = np.split(np.array(numbers, np.float32), np.cumsum(counts)[:-1])
        arrays = {
            specification.name: part.reshape(specification.shape)
            for specification, part in zip(found, parts, strict=True)
        }
        return cls(name, config, arrays, initial_learning_rate, card or {})


def fresh_weights(config: Config | None = None, seed=None) -> Weights:
    """Untrained weights, drawn as the released code draws them."""
    config = config or Config()
    return Weights("fresh", config, initial_meta_parameters(config, seed))


def read_files(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The card beside an `.npz` file and its arrays, verified against the card.

    Raises:
        ValueError: The card is missing, or the file is not the one it describes.
    """
    # Not `with_suffix`, which paths inside a zip file lack.
    card_path = path.parent / f"{path.stem}.json"
    if not card_path.is_file():
        raise ValueError(
            f"Weights need their card {card_path.name!r} beside {path.name!r}. "
            "Received: no such file"
        )
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The card {card_path.name!r} must be JSON. Received: {error}"
        ) from error
    missing = {"config", "sha256"} - set(card if isinstance(card, dict) else {})
    if missing:
        raise ValueError(
            f"The card {card_path.name!r} must be an object with 'config' and "
            f"'sha256'. Missing: {sorted(missing)}"
        )
    if not isinstance(card["config"], dict):
        raise ValueError(
            f"The 'config' of the card {card_path.name!r} must be an object. "
            f"Received: {card['config']!r}"
        )
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card["sha256"]:
        raise ValueError(
            f"{path.name!r} must have the sha256 of its card, {card['sha256']}: it is "
            f"damaged, or not the file the card describes. Received: {sha256}"
        )
    return card, arrays_from_npz(content, path.name)


def read_weights(path: pathlib.Path) -> Weights:
    """The weights of an `.npz` file, verified against the card beside it.

    Raises:
        ValueError: The card is missing, the file is not the one it describes, or they
            are not of the hierarchical RNN.
    """
    card, arrays = read_files(path)
    # `meta_training` trains other optimizers, too, and names them in the card.
    if card.get("optimizer", "hierarchical_rnn") != "hierarchical_rnn":
        raise ValueError(
            f"{path.name!r} must hold weights of the hierarchical RNN. Received: "
            f"weights of {card['optimizer']!r}, which only `meta_training` can use"
        )
    config = Config.from_dict(card["config"])
    held = arrays.pop(_CONFIG, None)
    meta_parameters = from_released_names(config, arrays)
    if held is not None and held.tobytes() != _config_bytes(card["config"]):
        raise ValueError(
            f"The 'config' of the card {path.stem + '.json'!r} must be the one that "
            f"{path.name!r} holds, {held.tobytes().decode(errors='replace')}. "
            f"Received: {card['config']}"
        )
    start = card.get("default_initial_learning_rate", FRESH_INITIAL_LEARNING_RATE)
    name = str(card.get("name", path.stem))
    return Weights(name, config, meta_parameters, start, card)


def _config_bytes(config: dict[str, Any]) -> bytes:
    """A config's dict as JSON, the same bytes whatever the order of its keys."""
    return json.dumps(config, sort_keys=True).encode()


def save_weights(weights: Weights, path, card: dict[str, Any] | None = None) -> str:
    """Writes `path` (an .npz) and its card beside it, both aside and then renamed.

    Args:
        weights: What to write.
        path: Where to; its folder must exist.
        card: More entries of the card: how the weights were trained, say.

    Returns:
        The sha256 of the npz.
    """
    config = weights.config.to_dict()
    arrays = to_released_names(weights.config, weights.meta_parameters)
    arrays[_CONFIG] = np.frombuffer(_config_bytes(config), np.uint8)
    entries = {
        **weights.card,
        **(card or {}),
        "name": weights.name,
        "config": config,
        "default_initial_learning_rate": weights.initial_learning_rate,
        "meta_parameters": weights.to_flat().size,
    }
    return write_files(path, arrays, entries)


def write_files(path, arrays: Mapping[str, np.ndarray], card: dict[str, Any]) -> str:
    """Writes arrays as an `.npz` and their card beside it, both atomically.

    The ending of the path may be left out. Returns the sha256 of the npz, which is
    added to the card.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    # Not where an earlier card has it.
    card.pop("sha256", None)
    text = json.dumps({**card, "sha256": sha256}, indent=1) + "\n"
    atomic_write_all({path: content, path.with_suffix(".json"): text.encode()})
    return sha256
