"""Meta-trained weights on disk: shipped ones by name, others by path.

Weights are two files side by side: `NAME.npz`, the arrays under the released
variable names (no pickle), and `NAME.json`, their card: the architecture, the
default start, how they were trained, and the sha256 of the npz, without which
nothing is loaded. Shipped names carry a version (`bootstrap-v1`) and never change;
`default` is an alias that moves on with better weights.
"""

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from learned_optimizer.config import Config
from learned_optimizer.meta_parameters import (
    from_released_names,
    initial_meta_parameters,
    specifications,
    to_released_names,
)

FOLDER = pathlib.Path(__file__).parent / "weights"
DEFAULT = "default"
ALIASES = {DEFAULT: "bootstrap-v1"}
# Where learning rates of fresh weights start; the released command line's default
# range is wider, but untrained weights keep what they start from.
FRESH_INITIAL_LEARNING_RATE = 1e-3


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
        _check_start(self.initial_learning_rate)
        released_names = {
            spec.name: spec.released_name for spec in specifications(self.config)
        }
        from_released_names(
            self.config,
            {
                released_names.get(name, name): array
                for name, array in self.meta_parameters.items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Name, architecture and the numbers themselves, as JSON types."""
        arrays = [
            np.asarray(self.meta_parameters[specification.name], "<f4").ravel()
            for specification in specifications(self.config)
        ]
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "initial_learning_rate": self.initial_learning_rate,
            "float32_base64": base64.b64encode(
                np.concatenate(arrays).tobytes()
            ).decode(),
        }

    @classmethod
    def from_dict(cls, values) -> "Weights":
        """The reverse of `to_dict`.

        Raises:
            ValueError: If a key is missing or the numbers do not fit the config.
        """
        wanted = {"name", "config", "initial_learning_rate", "float32_base64"}
        if set(values) != wanted:
            raise ValueError(
                f"Serialized weights have the keys {sorted(wanted)}. "
                f"Received: {sorted(values)}"
            )
        config = Config.from_dict(values["config"])
        try:
            content = base64.b64decode(values["float32_base64"], validate=True)
            flat = np.frombuffer(content, "<f4")
        except (ValueError, TypeError) as error:
            raise ValueError(
                "`float32_base64` of serialized weights must be the base64 of float32 "
                f"numbers. Received: {error}"
            ) from error
        wanted_count = sum(
            int(np.prod(specification.shape))
            for specification in specifications(config)
        )
        if flat.size != wanted_count:
            raise ValueError(
                f"Weights of this config have {wanted_count} numbers. "
                f"Received: {flat.size}"
            )
        arrays, start = {}, 0
        for specification in specifications(config):
            stop = start + int(np.prod(specification.shape))
            arrays[specification.name] = (
                flat[start:stop].reshape(specification.shape).astype(np.float32)
            )
            start = stop
        return cls(values["name"], config, arrays, values["initial_learning_rate"])


def list_weights() -> list[str]:
    """The names of the shipped weights; `default` is one of them."""
    return sorted([path.stem for path in FOLDER.glob("*.npz")] + list(ALIASES))


def fresh_weights(config: Config | None = None, seed=None) -> Weights:
    """Untrained weights, drawn as the released code draws them."""
    config = config or Config()
    return Weights("fresh", config, initial_meta_parameters(config, seed))


def load_weights(weights) -> Weights:
    """Weights by shipped name or path, verified against their card.

    Args:
        weights: A name from `list_weights()`, or the path of an `.npz` file with
            its card beside it (the ending may be left out).

    Raises:
        ValueError: If the name is unknown, a file is missing, the sha256 is not
            the card's, or the arrays do not fit the card's config.
        TypeError: If `weights` is neither a string nor a path.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "`weights` must be a name, a path, `Weights` or None. "
            f"Received: {weights!r} of type {type(weights).__name__}"
        )
    text = os.fspath(weights)
    name = ALIASES.get(text, text)
    shipped = FOLDER / f"{name}.npz"
    is_name = pathlib.PurePath(name).name == name and shipped.is_file()
    path = shipped if is_name else pathlib.Path(text)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    if not path.is_file():
        raise ValueError(
            "`weights` must be a shipped name or the path of an existing .npz file. "
            f"Received: weights={text!r}. Shipped names: {', '.join(list_weights())}"
        )
    loaded = _read(path)
    if is_name:
        loaded = dataclasses.replace(loaded, name=name, shipped=True)
    return loaded


def _check_start(rate):
    if (
        isinstance(rate, bool)
        or not isinstance(rate, (int, float))
        or not 0 < rate < math.inf
    ):
        raise ValueError(
            "The initial learning rate of weights must be a positive number. "
            f"Received: {rate!r}"
        )


def _read(path: pathlib.Path) -> Weights:
    card_path = path.with_suffix(".json")
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
    card = card if isinstance(card, dict) else {}
    missing = {"config", "sha256"} - set(card)
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
    config = Config.from_dict(card["config"])
    try:
        # `NpzFile` and not `np.load`, which would take a bare array or a pickle too.
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path.name!r} must be an npz archive of plain arrays. Received: {error}"
        ) from error
    start = card.get("default_initial_learning_rate", FRESH_INITIAL_LEARNING_RATE)
    return Weights(
        name=str(card.get("name", path.stem)),
        config=config,
        meta_parameters=from_released_names(config, arrays),
        initial_learning_rate=start,
        card=card,
    )


def save_weights(weights: Weights, path, card: dict[str, Any] | None = None) -> str:
    """Writes `path` (an .npz) and its card beside it, each aside and then renamed.

    Args:
        weights: What to write.
        path: Where to; its folder must exist.
        card: More entries of the card: how the weights were trained, say.

    Returns:
        The sha256 of the npz.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    buffer = io.BytesIO()
    np.savez(buffer, **to_released_names(weights.config, weights.meta_parameters))
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    entries = {
        **weights.card,
        **(card or {}),
        "name": weights.name,
        "config": weights.config.to_dict(),
        "default_initial_learning_rate": weights.initial_learning_rate,
        "meta_parameters": sum(
            array.size for array in weights.meta_parameters.values()
        ),
        "sha256": sha256,
    }
    text = json.dumps(entries, indent=1) + "\n"
    for target, content in (
        (path, buffer.getvalue()),
        (path.with_suffix(".json"), text.encode()),
    ):
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            aside.write_bytes(content)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    return sha256
