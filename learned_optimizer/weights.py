"""Meta-trained weights: shipped ones by name, others by path.

Shipped names carry a version (`bootstrap-v1`) and never change; `default` is an alias
that moves on with better weights.
"""

import dataclasses
import importlib.resources
import os
import pathlib

from learned_optimizer.interop.weight_files import (
    Weights,
    fresh_weights,
    read_weights,
    save_weights,
)

__all__ = ["Weights", "fresh_weights", "list_weights", "load_weights", "save_weights"]

# A `pathlib.Path`, or what reads alike where the package lies in a zip file.
FOLDER = importlib.resources.files("learned_optimizer") / "weights"
DEFAULT = "default"
ALIASES = {
    DEFAULT: "default-v7",
    "no_neural_networks": "no_neural_networks-v1",
    "released": "released-v2",
}


def list_weights() -> list[str]:
    """The names of the shipped weights; `default` is one of them."""
    files = [pathlib.PurePath(file.name) for file in FOLDER.iterdir()]
    return sorted([f.stem for f in files if f.suffix == ".npz"] + list(ALIASES))


def load_weights(weights) -> Weights:
    """Weights by shipped name or path, verified against their card.

    Args:
        weights: A name from `list_weights()`, the path of an `.npz` file with its
            card beside it (the ending may be left out), or the folder of a SavedModel
            that was exported (see `docs/export.md`).

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
    # `.` and `/` have no name that an ending could be added to.
    if path.suffix != ".npz" and path.name:
        path = path.with_name(path.name + ".npz")
    if not path.is_file():
        if text and pathlib.Path(text).is_dir():
            # TensorFlow is imported only where a SavedModel is read.
            from learned_optimizer.interop.saved_model_files import read_saved_model

            return read_saved_model(text)
        raise ValueError(
            "`weights` must be the folder of an exported SavedModel, a shipped name or "
            "the path of an existing .npz file. "
            f"Received: weights={text!r}. Shipped names: {', '.join(list_weights())}"
        )
    loaded = read_weights(path)
    if is_name:
        loaded = dataclasses.replace(loaded, name=name, shipped=True)
    return loaded
