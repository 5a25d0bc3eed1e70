"""`HierarchicalRNN.export`: the meta-parameters of an optimizer as a SavedModel."""

import dataclasses
import pathlib

import numpy as np
from absl import logging
from keras import ops

from learned_optimizer.utils.backend import check_backend


def export_optimizer(optimizer, path, default_config) -> pathlib.Path:
    """Exports a `HierarchicalRNN` with its meta-parameters as they are now.

    Settings that the SavedModel lacks are named in a warning.

    Args:
        optimizer: Built or not.
        path: As in `export_weights`.
        default_config: What `get_config` gives without arguments.

    Raises:
        ValueError: If the backend is not TensorFlow, or something else is there.
    """
    check_backend()
    # It imports TensorFlow, which need not be installed under other backends.
    from learned_optimizer.interop.saved_model_files import export_weights

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
