"""An optimizer's state in a store: by name, and whole or not at all.

Keras numbers an optimizer's variables. Here each has a name, and beside them stands how
the packed ones are arranged and of which model variables they are. A state in another
arrangement is repacked. From a state of other model variables, those of the same path
and shape keep theirs. Nothing is assigned before everything has been checked.

A state that does not fit is refused where the optimizer has taken steps. Elsewhere
there is nothing to lose: the optimizer warns and starts afresh.
"""

import json
import math
import operator
import warnings

import keras
import numpy as np
from keras import ops

from learned_optimizer.keras_step.state_description import (
    description_of,
    has_taken_steps,
    read_description,
)
from learned_optimizer.rule.layout import blocks_of_rows, rows_of_blocks
from learned_optimizer.rule.nominal_rate import log_sizes
from learned_optimizer.rule.state import FIELDS

DESCRIPTION = "description"
TOTAL_STEPS = "total_steps"


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
    for group in ("true_values", "averages", "accumulators"):
        for index, variable in enumerate(getattr(variables, group)):
            found[f"{group}.{index}"] = variable
    return found


def save(optimizer, store):
    """Writes the optimizer's variables into `store`, a mapping of arrays.

    What `load` keeps for an optimizer that is not built yet is written again.
    """
    if optimizer.state_to_load:
        for name, array in _kept_state(optimizer).items():
            store[name] = array
        return
    text = json.dumps(description_of(optimizer))
    store[DESCRIPTION] = np.frombuffer(text.encode(), np.uint8)
    for name, variable in named_variables(optimizer).items():
        store[name] = _numpy(variable)
    if optimizer.total_steps:
        # Not among the variables: a state without one is as good.
        store[TOTAL_STEPS] = np.int64(optimizer.total_steps)


def load(optimizer, store):
    """Assigns what `save` wrote; an empty store, of a model's weights alone, nothing.

    An optimizer that is not built keeps the arrays until it is.

    Raises:
        ValueError: If the optimizer has taken steps and the state is not of this
            optimizer on these variables. Nothing was changed then.
    """
    try:
        values = _values(optimizer, store)
    except ValueError as error:
        if has_taken_steps(optimizer):
            raise ValueError(
                f"{error}. The optimizer has taken steps and was left as it is. To "
                "load the rest of the file, use `load_weights(..., "
                "skip_mismatch=True)` or `load_model(..., compile=False)`. After "
                "`optimizer.reset()` it takes what fits and else starts afresh"
            ) from error
        _warn(f"the whole optimizer starts afresh, from step 0. {error}")
        optimizer.reset()
        return
    variables = named_variables(optimizer)
    new_rule = False
    for name, value in values.items():
        variable = variables[name]
        if isinstance(variable, list):
            parts = np.split(value, len(variable), axis=1)
            for shard, part in zip(variable, parts, strict=True):
                shard.assign(part)
            continue
        if name.startswith("meta."):
            new_rule = new_rule or not np.array_equal(value, _numpy(variable))
        variable.assign(value)
    if DESCRIPTION in store.keys():
        total_steps = TOTAL_STEPS in store.keys() and int(store[TOTAL_STEPS])
        optimizer.load_total_steps(total_steps or None)
    if new_rule and keras.backend.backend() == "jax":
        # Steps that are compiled hold the old meta-parameters as constants.
        import jax

        jax.clear_caches()


def load_kept(optimizer):
    """Loads what `load` kept for an optimizer that has been built now."""
    state = _kept_state(optimizer)
    optimizer.state_to_load = ()
    load(optimizer, state)


def _kept_state(optimizer) -> dict:
    """It, with the learning rate that was set since, if one was."""
    state, learning_rate = optimizer.state_to_load
    if _learning_rate(optimizer) != learning_rate:
        state = state | {"learning_rate": _learning_rate(optimizer)}
    return state


def _learning_rate(optimizer):
    """A number, or None if it is a schedule."""
    variable = named_variables(optimizer).get("learning_rate")
    return None if variable is None else ops.convert_to_numpy(variable)


def _warn(what):
    warnings.warn(
        f"A saved state does not fit HierarchicalRNN: {what}. All else that the file "
        "holds is loaded",
        stacklevel=4,
    )


def _values(optimizer, store) -> dict:
    """The array for each of the optimizer's variables, by name, if the state fits."""
    names = set(store.keys())
    if not names:
        _check_holds_no_other_state(store)
        return {}
    if DESCRIPTION not in names:
        raise ValueError(
            "A state must be one of HierarchicalRNN and hold its own description. "
            f"Received: {len(names)} arrays of another optimizer's state"
        )
    saved = read_description(optimizer, store[DESCRIPTION])
    variables = named_variables(optimizer)
    if "shapes" not in saved and not has_taken_steps(optimizer):
        # A model that was compiled and saved, not trained: there is no more to load.
        return {name: _checked(store, name, variables) for name in names & {*variables}}
    if not optimizer.built:
        state = {name: np.array(store[name]) for name in names}
        optimizer.state_to_load = (state, _learning_rate(optimizer))
        return {}
    sources = _sources(optimizer, saved)
    _check_names(optimizer, names - {TOTAL_STEPS}, variables, sources, saved)
    if None in sources:
        # What follows is laid over a fresh start, not over what was read when the
        # optimizer was built, before a file's weights were in the model.
        optimizer.reset()
    values = {}
    for name, variable in variables.items():
        group, _, index = name.partition(".")
        level = FIELDS[name].level if name in FIELDS else None
        if level == "parameter":
            values[name] = _repacked(store, name, variable, sources, saved, optimizer)
        elif level == "tensor":
            values[name] = _of_tensors(store, name, variable, sources, saved)
            if name == "log_size" and None in sources:
                # Else read at the first step of the optimizer, which is over.
                fresh = [source is None for source in sources]
                values[name][:, fresh] = _log_sizes(optimizer)[:, fresh]
        elif group in _kept(optimizer):
            source = sources[int(index)]
            if source is not None:
                values[name] = _checked(store, name, variables, f"{group}.{source}")
            elif group == "averages":
                # Of no values yet: from where the variable is now.
                values[name] = _numpy(optimizer.learned_variables[int(index)])
        else:
            values[name] = _checked(store, name, variables)
    return values


def _kept(optimizer) -> set[str]:
    """The names of what is kept for each model variable, a variable each."""
    switches = {
        "true_values": optimizer.config.attention,
        "averages": optimizer.use_ema,
        "accumulators": optimizer.gradient_accumulation_steps,
    }
    return {name for name, on in switches.items() if on}


def _checked(store, name, variables, saved_name=None) -> np.ndarray:
    """An array of the store, which must have its variable's shape."""
    array = np.asarray(store[saved_name or name])
    _check_shape(saved_name or name, array, tuple(variables[name].shape))
    return array


def _check_shape(name, array, shape):
    if array.shape != shape:
        raise ValueError(
            f"The state's {name!r} must have the shape {shape}. Received: {array.shape}"
        )


def _check_names(optimizer, names, variables, sources, saved):
    """Refuses a state that lacks arrays, or holds some that have no place here."""
    kept = _kept(optimizer)
    positional = saved["shapes"] == description_of(optimizer)["shapes"]
    count = len(sources) if positional else len(saved["paths"])
    expected = {name for name in variables if name.partition(".")[0] not in kept}
    expected |= {f"{group}.{index}" for group in kept for index in range(count)}
    missing = sorted(expected - names)
    unknown = sorted(names - expected - {DESCRIPTION})
    if missing or unknown:
        raise ValueError(
            "A state must hold exactly the optimizer's variables (compare `use_ema`, "
            "`gradient_accumulation_steps` and whether the learning rate is a "
            f"schedule). Missing: {missing}. Not part of it: {unknown}"
        )


def _sources(optimizer, saved) -> list:
    """The position in the saved state of each learned variable, None where it has none.

    Variables of the same shapes in the same order are the same. Others are the same
    where shape and path are; of a path, a loaded model may lack the first names.

    Raises:
        ValueError: If none is the same; or if not all are and the optimizer has taken
            steps.
    """
    here = description_of(optimizer)
    if saved["shapes"] == here["shapes"]:
        return list(range(len(here["paths"])))
    rule = (
        "A state must be of the shapes of the variables that the optimizer was built "
        f"with: {here['shapes']}"
    )
    if "paths" not in saved:
        raise ValueError(
            f"{rule}. Received: {saved['shapes']}, and no paths of the variables, by "
            "which those that are the same could be found"
        )
    wanted = list(zip(here["paths"], here["shapes"], strict=False))
    given = list(zip(saved["paths"], saved["shapes"], strict=False))
    sources = [None] * len(wanted)
    for same in (operator.eq, _one_ends_with_the_other):
        pairs = [
            (position, source)
            for position, tensor in enumerate(wanted)
            for source, other in enumerate(given)
            if tensor[1] == other[1]
            and same(tensor[0], other[0])
            and sources[position] is None
            and source not in sources
        ]
        for position, source in pairs:
            # Only where nothing else could be meant.
            if sum(position == p or source == s for p, s in pairs) == 1:
                sources[position] = source
    fresh = [tensor[0] for tensor, s in zip(wanted, sources, strict=True) if s is None]
    if fresh and (len(fresh) == len(wanted) or has_taken_steps(optimizer)):
        raise ValueError(f"{rule}, {here['paths']}. Received: {given}")
    if fresh:
        _warn(f"the state of {', '.join(fresh)} starts afresh, the rest goes on")
    return sources


def _one_ends_with_the_other(path, other) -> bool:
    return f"/{path}".endswith(f"/{other}") or f"/{other}".endswith(f"/{path}")


def _numpy(variable) -> np.ndarray:
    if isinstance(variable, list):
        # Of the state in bfloat16, so that any optimizer can read it.
        parts = [ops.cast(ops.convert_to_tensor(v), "float32") for v in variable]
        return np.concatenate([ops.convert_to_numpy(part) for part in parts], axis=1)
    return ops.convert_to_numpy(variable)


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


def _of_tensors(store, name, variable, sources, saved) -> np.ndarray:
    """`[..., tensors]`, a column from where each tensor was saved."""
    array, value = np.asarray(store[name]), np.array(_numpy(variable))
    _check_shape(name, array, (*value.shape[:-1], len(saved["shapes"])))
    for position, source in enumerate(sources):
        if source is not None:
            value[..., position] = array[..., source]
    return value


def _log_sizes(optimizer) -> np.ndarray:
    """`[1, tensors]`, of the variables as they are now."""
    values = [_numpy(v).astype(np.float32) for v in optimizer.learned_variables]
    mean_squares = [np.mean(np.square(v)) if v.size else 0.0 for v in values]
    sizes = log_sizes(
        ops.convert_to_tensor(np.array(mean_squares, np.float32)),
        optimizer._layout[0],
        optimizer.config.nominal,
    )
    return ops.convert_to_numpy(sizes)


def _repacked(store, name, variable, sources, saved, optimizer) -> np.ndarray:
    """`[features, blocks, block_size]` in the optimizer's own arrangement.

    Padding and what starts afresh keep what they are: padding takes part in nothing.
    """
    layout, block_size = optimizer._layout[0], saved["block_size"]
    array, value = np.asarray(store[name]), _numpy(variable)
    in_order = sources == list(range(len(saved["shapes"])))
    if in_order and array.shape == value.shape and block_size == layout.block_size:
        return array
    blocks = [math.ceil(math.prod(shape) / block_size) for shape in saved["shapes"]]
    if (
        array.ndim != 3
        or array.shape[0] != value.shape[0]
        or array.shape[1] < sum(blocks)
        or array.shape[2] != block_size
    ):
        raise ValueError(
            f"The state's {name!r} must be of {value.shape[0]} features in "
            f"{sum(blocks)} or more blocks of {block_size}. "
            f"Received: shape {array.shape}"
        )
    firsts = np.cumsum([0, *blocks])
    value = np.array(value)
    for position, source in enumerate(sources):
        if source is None:
            continue
        rows = rows_of_blocks(
            array[:, firsts[source] : firsts[source + 1]], layout.shapes[position]
        )
        value[:, layout.blocks_of(position)] = blocks_of_rows(rows, layout.block_size)
    return value
