"""An optimizer's state in a store: by name, and whole or not at all.

Keras numbers an optimizer's variables and skips, with a warning, a state that
does not match. Here each variable has a name, and beside them stands how the packed
ones are arranged: a state in another arrangement is repacked, any other mismatch
is an error, and nothing is assigned before everything has been checked.
"""

import json
import math

import numpy as np
from keras import ops

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.layout import blocks_of_rows, rows_of_blocks
from learned_optimizer.rule.state import PARAMETER_FIELDS
from learned_optimizer.weights import ALIASES, list_weights, load_weights

FORMAT = "learned_optimizer/1"
DESCRIPTION = "description"


def named_variables(optimizer) -> dict:
    """All variables of a built optimizer by the names they are stored under.

    What lies in shards is a list of variables, stored as one array.
    """
    found = {"iteration": optimizer._iterations}
    # A schedule is no variable; a learning rate that was given as a number is.
    if hasattr(optimizer._learning_rate, "assign"):
        found["learning_rate"] = optimizer._learning_rate
    if not optimizer.built:
        return found
    variables = optimizer.step_variables(optimizer._trainable_variables)
    found |= variables.state
    found |= {f"meta.{k}": value for k, value in variables.meta_parameters.items()}
    found["skipped_steps"] = variables.skipped_steps
    for name in ("true_values", "averages", "accumulators"):
        for index, variable in enumerate(getattr(variables, name)):
            found[f"{name}.{index}"] = variable
    return found


def _description(optimizer) -> dict:
    if not optimizer.built:
        return {"format": FORMAT}
    layout = optimizer._layout[0]
    return {
        "format": FORMAT,
        "config": optimizer.config.to_dict(),
        "block_size": layout.block_size,
        "shapes": [list(shape) for shape in layout.shapes],
    }


def _is_as_built(optimizer) -> bool:
    """Whether the optimizer was built and never called."""
    return optimizer.built and int(ops.convert_to_numpy(optimizer._iterations)) == 0


def save(optimizer, store):
    """Writes the optimizer's variables into `store`, a mapping of arrays."""
    text = json.dumps(_description(optimizer))
    store[DESCRIPTION] = np.frombuffer(text.encode(), np.uint8)
    for name, variable in named_variables(optimizer).items():
        store[name] = _numpy(variable)


def load(optimizer, store):
    """Assigns what `save` wrote; an empty store, of a model's weights alone, nothing.

    Raises:
        ValueError: If the state is not of this optimizer on these variables.
    """
    names = set(store.keys())
    if not names:
        _check_holds_no_other_state(store)
        return
    if DESCRIPTION not in names:
        raise ValueError(
            "A state of HierarchicalRNN holds its own description. Received: one "
            f"without, with {len(names)} arrays; it is another optimizer's state"
        )
    saved = _read_description(store[DESCRIPTION])
    if "config" in saved:
        # A state that was saved before a switch existed has it off.
        saved["config"] = read_config(saved["config"]).to_dict()
    here = _description(optimizer)
    variables = named_variables(optimizer)
    if "shapes" in saved and not optimizer.built:
        raise ValueError(
            "A state is loaded into an optimizer that was built: call "
            "`optimizer.build(model.trainable_variables)` first. Received: not built"
        )
    if "shapes" not in saved and _is_as_built(optimizer):
        # A model that was compiled and saved, not trained: there is no more to load.
        saved = here | {"format": saved.get("format")}
        variables = {name: variables[name] for name in names & set(variables)}
    for key, rule in (
        ("format", "the format of this package"),
        ("config", "the architecture of the optimizer's weights"),
        ("shapes", "the shapes of the variables it was built with"),
    ):
        if saved.get(key) != here.get(key):
            raise ValueError(
                f"A state is loaded into an optimizer that has {rule}: "
                f"{here.get(key)}. Received: {saved.get(key)}"
                + (weights_hint(saved.get(key)) if key == "config" else "")
            )
    if "shapes" in saved:
        block_size = saved.get("block_size")
        if type(block_size) is not int or block_size < 1:
            raise ValueError(
                "The description in a state must have a positive integer "
                f"'block_size'. Received: {block_size!r}"
            )
    missing = sorted(set(variables) - names)
    unknown = sorted(names - set(variables) - {DESCRIPTION})
    if missing or unknown:
        raise ValueError(
            "A state must hold exactly the optimizer's variables (compare `use_ema`, "
            "`gradient_accumulation_steps` and whether the learning rate is a "
            f"schedule). Missing: {missing}. Not part of it: {unknown}."
        )
    values = {}
    for name, variable in variables.items():
        value = np.asarray(store[name])
        if name in PARAMETER_FIELDS:
            value = _repack(name, value, variable, saved["block_size"], optimizer)
        if tuple(value.shape) != _shape(variable):
            raise ValueError(
                f"The state's {name!r} must have the shape {_shape(variable)}. "
                f"Received: {tuple(value.shape)}"
            )
        values[name] = value
    for name, variable in variables.items():
        if isinstance(variable, list):
            parts = np.split(values[name], len(variable), axis=1)
            for shard, part in zip(variable, parts, strict=True):
                shard.assign(part)
        else:
            variable.assign(values[name])


def _numpy(variable) -> np.ndarray:
    if isinstance(variable, list):
        return np.concatenate([ops.convert_to_numpy(v) for v in variable], axis=1)
    return ops.convert_to_numpy(variable)


def _shape(variable) -> tuple[int, ...]:
    if isinstance(variable, list):
        features, blocks, size = variable[0].shape
        return features, blocks * len(variable), size
    return tuple(variable.shape)


def _read_description(array) -> dict:
    try:
        found = json.loads(bytes(np.asarray(array, np.uint8)).decode())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The description in a state must be JSON. Received: {error}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"The description in a state must be an object. Received: {found!r}"
        )
    return found


def read_config(values) -> Config:
    """The architecture that a state's description names, a dict.

    Raises:
        ValueError: It is none of this package.
    """
    try:
        return Config.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "The 'config' in a state's description must be one of this package. "
            f"Received: {error}"
        ) from error


def weights_hint(config) -> str:
    """Which shipped weights a state of this architecture can be loaded into.

    Args:
        config: A dict, from `Config.to_dict`.

    Returns:
        The end of a message, or nothing.
    """
    fitting = [
        repr(name)
        for name in list_weights()
        if name not in ALIASES and load_weights(name).config.to_dict() == config
    ]
    if not fitting:
        return ""
    return (
        ", the architecture of shipped weights: make the optimizer with "
        f"`weights={' or '.join(fitting)}`"
    )


def _check_holds_no_other_state(store):
    """Refuses a file without a state for this optimizer that holds the model's other.

    A file of weights alone holds none at all. One of a model whose optimizer is not
    in a `LossScaleOptimizer`, loaded into one that is, has it at another place.
    """
    has_path = getattr(store, "has_path", None)
    if has_path and has_path("optimizer/vars"):
        raise ValueError(
            "A state must lie where the optimizer does, in a `LossScaleOptimizer` or "
            "not. Received: a file whose state is that of `model.optimizer` itself; "
            "compile the model as the one that was saved"
        )


def _repack(name, value, variable, saved_block_size, optimizer):
    """`[features, blocks, block_size]` in the optimizer's own arrangement.

    Padding keeps what it was built with: it takes part in nothing.
    """
    layout = optimizer._layout[0]
    if value.shape == _shape(variable) and saved_block_size == layout.block_size:
        return value
    blocks = [math.ceil(math.prod(shape) / saved_block_size) for shape in layout.shapes]
    if (
        value.ndim != 3
        or value.shape[0] != _shape(variable)[0]
        or value.shape[1] < sum(blocks)
        or value.shape[2] != saved_block_size
    ):
        raise ValueError(
            f"The state's {name!r} must be of {_shape(variable)[0]} features in "
            f"{sum(blocks)} or more blocks of {saved_block_size}. "
            f"Received: shape {value.shape}"
        )
    repacked = np.array(_numpy(variable))
    first = 0
    for tensor, shape in enumerate(layout.shapes):
        rows = rows_of_blocks(value[:, first : first + blocks[tensor]], shape)
        repacked[:, layout.blocks_of(tensor)] = blocks_of_rows(rows, layout.block_size)
        first += blocks[tensor]
    return repacked
