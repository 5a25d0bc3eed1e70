"""SavedModels of the optimizer on disk: written atomically, read back verified.

Beside what TensorFlow writes lies `assets.extra/card.json`: name, architecture, the
card of the weights, and a sha256 over these and all numbers, without which the weights
are not read back. Reading back takes the numbers alone and runs nothing of the
SavedModel. What a SavedModel computes is `saved_model.py`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from absl import logging
from keras import ops

from learned_optimizer.interop.saved_model import ExportedOptimizer
from learned_optimizer.interop.weight_files import Weights
from learned_optimizer.rule.config import Config
from learned_optimizer.utils.atomic_write import replace_folder, temporary_sibling
from learned_optimizer.utils.backend import check_backend

FORMAT = "learned_optimizer/savedmodel/1"
# The folder of a SavedModel that its format leaves to others.
CARD = pathlib.PurePath("assets.extra", "card.json")
_NUMBERS = "meta_parameters/.ATTRIBUTES/VARIABLE_VALUE"
_CARD_KEYS = {"format", "name", "config", "initial_learning_rate", "card", "sha256"}


def export_weights(weights: Weights, path) -> pathlib.Path:
    """Writes a SavedModel, whole or not at all.

    Args:
        weights: What to export.
        path: A local folder: new, empty, or an earlier export, which is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: If something else is at `path`, or Keras runs on another backend
            than TensorFlow.
    """
    check_backend()
    path = pathlib.Path(path).resolve()
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary_sibling(path)
    try:
        module = ExportedOptimizer(weights)
        tf.saved_model.save(module, os.fspath(aside), signatures=module.signatures())
        (aside / CARD).parent.mkdir()
        text = json.dumps(_card_of(weights), indent=1) + "\n"
        (aside / CARD).write_text(text, encoding="utf-8")
        replace_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def export_optimizer(optimizer, path, default_config) -> pathlib.Path:
    """`HierarchicalRNN.export`: a SavedModel of its meta-parameters as they are now.

    Settings that the SavedModel lacks, which are others than those of
    `default_config`, are named in a warning. Errors are those of `export_weights`.
    """
    left_out = _settings_left_out(optimizer, default_config)
    if left_out:
        logging.warning(
            "A SavedModel holds the learned update alone, not the optimizer's settings "
            "(see docs/export.md). Received: %s",
            ", ".join(f"{name}={value!r}" for name, value in left_out.items()),
        )
    weights = optimizer.weights
    if optimizer.built:
        variables = optimizer.step_variables(optimizer._trainable_variables)
        current = {
            name: ops.convert_to_numpy(variable)
            for name, variable in variables.meta_parameters.items()
        }
        if not all(
            np.array_equal(value, weights.meta_parameters[name])
            for name, value in current.items()
        ):
            # A state was loaded that came with others; the card is not of those.
            weights = dataclasses.replace(
                weights,
                name=f"{weights.name}-changed",
                meta_parameters=current,
                card={},
                shipped=False,
            )
    return export_weights(weights, path)


def _settings_left_out(optimizer, default_config) -> dict:
    """The settings that are not as by default and that no SavedModel holds."""
    # What is in the numbers, or decides nothing in them.
    kept = {"name", "weights", "seed"}
    return {
        name: value
        for name, value in optimizer.get_config().items()
        if name not in kept and value != default_config.get(name)
    }


def read_saved_model(path) -> Weights:
    """The weights of a SavedModel that was exported here, verified.

    Raises:
        ValueError: If it is none of ours, or was changed or damaged.
    """
    path = pathlib.Path(path)
    if not _is_export(path):
        raise ValueError(
            "A folder of weights must be a SavedModel that HierarchicalRNN exported, "
            f"with saved_model.pb and {CARD}. Received: {os.fspath(path)!r}"
        )
    card = _read_card(path)
    try:
        reader = tf.train.load_checkpoint(os.fspath(path / "variables" / "variables"))
        numbers = reader.get_tensor(_NUMBERS)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The variables of {path.name!r} must be a checkpoint with {_NUMBERS!r}. "
            f"Received: {' '.join(str(error).split())}"
        ) from error
    sha256 = card.pop("sha256")
    found = _sha256(card, numbers)
    if found != sha256:
        raise ValueError(
            f"The card and numbers of {path.name!r} must have the sha256 that the card "
            f"names, {sha256}: one of them was changed. Received: {found}"
        )
    config, start = Config.from_dict(card["config"]), card["initial_learning_rate"]
    return Weights.from_flat(card["name"], config, numbers, start, card["card"])


def _card_of(weights) -> dict:
    card = {
        "format": FORMAT,
        "name": weights.name,
        "config": weights.config.to_dict(),
        "initial_learning_rate": weights.initial_learning_rate,
        "card": weights.card,
    }
    return card | {"sha256": _sha256(card, weights.to_flat())}


def _sha256(card, numbers) -> str:
    """Of all other entries of the card and all numbers."""
    text = json.dumps(card, sort_keys=True)
    return hashlib.sha256(text.encode() + numbers.astype("<f4").tobytes()).hexdigest()


def _read_card(path) -> dict:
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{CARD} of {path.name!r} must be JSON. Received: {error}"
        ) from error
    keys = sorted(card) if isinstance(card, dict) else type(card).__name__
    if keys != sorted(_CARD_KEYS) or card["format"] != FORMAT:
        raise ValueError(
            f"{CARD} of {path.name!r} must be an object of the keys "
            f"{sorted(_CARD_KEYS)} and the format {FORMAT!r}. Received: {keys}"
            + (f" and {card['format']!r}" if "format" in keys else "")
        )
    return card


def _is_export(path) -> bool:
    return (path / CARD).is_file() and (path / "saved_model.pb").is_file()


def _check_replaceable(path):
    is_free = not path.exists() or path.is_dir() and not any(path.iterdir())
    if not is_free and not _is_export(path):
        raise ValueError(
            "A SavedModel is exported to a new or empty folder, or in the place of an "
            f"earlier export. Received: {os.fspath(path)!r}, which is something else"
        )
