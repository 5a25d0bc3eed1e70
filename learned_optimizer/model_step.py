"""One step on a model's variables: everything around the update rule.

    accumulate → find what is finite → clip → update rule → constrain → average

In the middle stands the update rule, in parts that see packed arrays alone:
`prepare`, `advance` (a shard) and `finish`. A backend can compile them apart and run
shards side by side; what touches a model's many tensors one by one, `collect` and
`assign`, is left to its plain operations.

It is written once, in `keras.ops`, for every backend and for each replica under
`tf.distribute`: gradients come in already summed over replicas, variables are
whatever can be read and assigned. No assignment stands inside a conditional;
whether an accumulated update is due, and which tensors take part, are masks.
"""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from learned_optimizer import packing
from learned_optimizer.config import Config
from learned_optimizer.levels import Levels
from learned_optimizer.packing import Layout
from learned_optimizer.parameter_pass import STATE_FIELDS, pass_over_parameters
from learned_optimizer.update_rule import (
    TensorLevels,
    block_inputs,
    finish_steps,
    finish_tensors,
    state_shapes,
    sum_log_learning_rates,
)

# The square of a larger one, summed over a tensor, would overflow float32 and spoil
# the state for good. The scaled gradient saturates long before.
LARGEST_GRADIENT = 1e15


@dataclasses.dataclass(frozen=True)
class Settings:
    """What does not change from step to step.

    Attributes:
        layout: Arrangement of the learned tensors.
        config: The architecture.
        present: Positions of the tensors that have a gradient, one a gradient.
        weight_decay: `[tensors]`, or None.
        clipnorm: As in Keras, each of the three a number or None.
        clipvalue: See `clipnorm`.
        global_clipnorm: See `clipnorm`.
        loss_scale_factor: Divides the gradients, or None.
        accumulation_steps: Calls an update takes, or None.
        ema_momentum: Momentum of the averages, None without them.
        ema_overwrite_frequency: As in Keras.
        constraints: A callable or None a tensor.
    """

    layout: Layout
    config: Config
    present: tuple[int, ...]
    weight_decay: Any = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    loss_scale_factor: float | None = None
    accumulation_steps: int | None = None
    ema_momentum: float | None = None
    ema_overwrite_frequency: int | None = None
    constraints: tuple[Any, ...] = ()


class Variables(NamedTuple):
    """What a step reads and writes; lists are in the layout's order.

    Attributes:
        values: The model's variables.
        true_values: With attention, the parameters proper; else empty.
        averages: Moving averages; empty without `use_ema`.
        accumulators: Sums of gradients; empty without accumulation.
        state: `{field of State: variable}`, without those of size 0; a list of
            variables, one a shard, for the fields of parameters.
        meta_parameters: `{name: variable}`.
        skipped_steps: A counter.
    """

    values: list[Any]
    true_values: list[Any]
    averages: list[Any]
    accumulators: list[Any]
    state: dict[str, Any]
    meta_parameters: dict[str, Any]
    skipped_steps: Any


def run(settings: Settings, variables: Variables, gradients, learning_rate, calls):
    """A whole step.

    Args:
        settings: What does not change.
        variables: What is read and written.
        gradients: One for each of `settings.present`, dense.
        learning_rate: A scalar.
        calls: How often the optimizer was called before, an integer.
    """
    active = update(settings, variables, gradients, learning_rate, calls)
    constrain(settings, variables, active)
    average(settings, variables, calls)


class Prepared(NamedTuple):
    """What `prepare` finds out for the parts after it.

    Attributes:
        gradients: `[blocks, block_size]` a shard, clipped.
        values: The same of the parameters; Nones without weight decay.
        blocks: `{name: [features, blocks, 1]}` a shard, see `block_inputs`.
        meta_parameters: Their values.
        active: `[tensors]`, 1 where a tensor is to be updated.
        num_chunks: How many chunks to run in each shard; None: all.
    """

    gradients: list[Any]
    values: list[Any]
    blocks: list[dict[str, Any]]
    meta_parameters: dict[str, Any]
    active: Any
    num_chunks: Any


class Parts(NamedTuple):
    """The functions of this module that a backend may compile, given `Settings`."""

    prepare: Any
    advance: Any
    finish: Any


def parts_of(settings: Settings, compiled=lambda part: part) -> Parts:
    """`prepare`, `advance` and `finish` for `settings`, each put through `compiled`."""
    return Parts(
        *(
            compiled(functools.partial(part, settings))
            for part in (prepare, advance, finish)
        )
    )


def update(
    settings: Settings,
    variables: Variables,
    gradients,
    learning_rate,
    calls,
    parts=None,
):
    """Accumulation, clipping and the update rule.

    Args:
        settings: What does not change.
        variables: What is read and written.
        gradients: As in `run`.
        learning_rate: As in `run`.
        calls: As in `run`.
        parts: From `parts_of`, compiled or not; None: as they are.

    Returns:
        `[tensors]` float32, 1 where a tensor was updated.
    """
    parts = parts or parts_of(settings)
    collected = collect(settings, variables, gradients, calls)
    state = {
        name: variables.state[name]
        for name in TensorLevels._fields
        if name in variables.state
    }
    rates = variables.state.get("log_learning_rate", [])
    prepared = parts.prepare(
        state,
        rates,
        variables.meta_parameters,
        variables.skipped_steps,
        collected,
    )
    passes = [
        parts.advance(shard, *inputs, prepared.meta_parameters, prepared.num_chunks)
        for shard, *inputs in shards(variables, prepared)
    ]
    step, attended_step = parts.finish(state, passes, prepared, learning_rate)
    assign(settings, variables, step, attended_step, prepared.active)
    return prepared.active


class Collected(NamedTuple):
    """A model's tensors, packed.

    Attributes:
        gradients: `[blocks, block_size]`.
        values: The same of the parameters; None without weight decay.
        due: Whether an accumulated update is due; None without accumulation.
    """

    gradients: Any
    values: Any
    due: Any


def collect(settings: Settings, variables: Variables, gradients, calls) -> Collected:
    """Unscales, accumulates and packs gradients; packs values for the decay."""
    due = None
    if settings.loss_scale_factor is not None:
        # In float32, lest a small gradient of half precision vanish.
        gradients = [
            ops.cast(gradient, "float32") / settings.loss_scale_factor
            for gradient in gradients
        ]
    if settings.accumulation_steps:
        due = ops.equal((calls + 1) % settings.accumulation_steps, 0)
        gradients = _accumulate(settings, variables, gradients, due)
    values = None
    if settings.weight_decay is not None:
        parameters = _parameters(settings, variables)
        values = packing.pack(
            [ops.convert_to_tensor(parameter) for parameter in parameters],
            settings.layout,
        )
    return Collected(_pack(settings, gradients), values, due)


def shards(variables: Variables, prepared: Prepared):
    """State variables, gradients, values and block inputs, shard by shard."""
    fields = [name for name in STATE_FIELDS if name in variables.state]
    for index, inputs in enumerate(
        zip(prepared.gradients, prepared.values, prepared.blocks, strict=True)
    ):
        yield {name: variables.state[name][index] for name in fields}, *inputs


def prepare(
    settings: Settings, state, rates, meta_parameters, skipped_steps, collected
) -> Prepared:
    """Everything that comes before the pass over parameters.

    Args:
        settings: What does not change.
        state: `{field of TensorLevels: variable}`.
        rates: The variables of the log learning rates, one a shard.
        meta_parameters: Their variables.
        skipped_steps: The counter, which is advanced.
        collected: From `collect`.
    """
    layout, config = settings.layout, settings.config
    active, skipped = _active(settings, collected.gradients, collected.due)
    skipped_steps.assign(ops.convert_to_tensor(skipped_steps) + skipped)
    gradients = ops.clip(collected.gradients, -LARGEST_GRADIENT, LARGEST_GRADIENT)
    gradients = _clip(settings, gradients, active)
    meta_parameters = {
        name: ops.convert_to_tensor(value) for name, value in meta_parameters.items()
    }
    blocks = block_inputs(
        _tensor_levels(settings, state),
        _rate_sums(settings, rates),
        layout,
        Levels(meta_parameters, layout),
        config,
        settings.weight_decay,
        active,
    )
    num_chunks = None
    if collected.due is not None:
        num_chunks = ops.where(collected.due, layout.num_chunks, 0)
    rows_of_shards = layout.shard_blocks
    values = collected.values
    return Prepared(
        gradients=[gradients[rows] for rows in rows_of_shards],
        values=[None if values is None else values[rows] for rows in rows_of_shards],
        blocks=[
            {name: value[:, rows] for name, value in blocks.items()}
            for rows in rows_of_shards
        ],
        meta_parameters=meta_parameters,
        active=active,
        num_chunks=num_chunks,
    )


def advance(
    settings: Settings, state, gradient, values, blocks, meta_parameters, num_chunks
):
    """The pass over one shard's parameters, which updates their state.

    Args:
        settings: What does not change.
        state: `{field: variable}` of the shard.
        gradient: The shard's, as are `values` and `blocks`: see `Prepared`.
        values: See `gradient`.
        blocks: See `gradient`.
        meta_parameters: Their values.
        num_chunks: How many chunks to run, or None.

    Returns:
        `steps` and `sums` of the `ParameterPass`.
    """
    layout, config = settings.layout, settings.config
    rows, block_size = gradient.shape
    result = pass_over_parameters(
        {
            name: ops.convert_to_tensor(state[name])
            if name in state
            else ops.zeros((0, rows, block_size), "float32")
            for name in STATE_FIELDS
        },
        gradient,
        values,
        blocks,
        Levels(meta_parameters, layout),
        config,
        layout.blocks_per_chunk,
        num_chunks,
    )
    for name, variable in state.items():
        variable.assign(result.state[name])
    return result.steps, result.sums


def finish(settings: Settings, state, passes, prepared: Prepared, learning_rate):
    """The upper levels of the hierarchy, and the steps at their length.

    Args:
        settings: What does not change.
        state: `{field of TensorLevels: variable}`, which are updated.
        passes: What `advance` returned, a shard each.
        prepared: From `prepare`.
        learning_rate: A scalar.

    Returns:
        The step and the attended step (None without attention), `[blocks,
        block_size]`.
    """
    layout, config = settings.layout, settings.config
    steps, sums = zip(*passes, strict=True)
    tensors, lengths = finish_tensors(
        _tensor_levels(settings, state),
        _joined(sums, axis=1),
        layout,
        Levels(prepared.meta_parameters, layout),
        config,
        prepared.active,
    )
    for name, variable in state.items():
        variable.assign(getattr(tensors, name))
    found = [
        finish_steps(
            shard,
            lengths,
            layout.block_tensor[rows],
            config,
            learning_rate,
            prepared.active,
        )
        for shard, rows in zip(steps, layout.shard_blocks, strict=True)
    ]
    steps, attended_steps = zip(*found, strict=True)
    return _joined(steps), _joined(attended_steps) if config.attention else None


def assign(settings: Settings, variables: Variables, step, attended_step, active):
    """Takes the step, and the attended step, off the model's variables."""
    steps = packing.unpack(step, settings.layout)
    parameters = _parameters(settings, variables)
    if settings.config.attention:
        attended_steps = packing.unpack(attended_step, settings.layout)
    for position in settings.present:
        value = ops.convert_to_tensor(parameters[position])
        if settings.config.attention:
            # A tensor that takes no part keeps its attended location.
            old = ops.convert_to_tensor(variables.values[position])
            location = value - ops.cast(attended_steps[position], value.dtype)
            variables.values[position].assign(
                ops.where(active[position] > 0, location, old)
            )
        parameters[position].assign(value - ops.cast(steps[position], value.dtype))


def constrain(settings: Settings, variables: Variables, active):
    """Applies the variables' constraints to what was updated."""
    parameters = _parameters(settings, variables)
    for position in settings.present:
        constraint = settings.constraints[position]
        if constraint is not None:
            value = ops.convert_to_tensor(parameters[position])
            parameters[position].assign(
                ops.where(active[position] > 0, constraint(value), value)
            )


def average(settings: Settings, variables: Variables, calls):
    """Moves the averages, and overwrites by them when that is due.

    As Keras does it, at every call: with momentum 0 until the first update.
    """
    if settings.ema_momentum is None:
        return
    updates = calls // (settings.accumulation_steps or 1)
    parameters = _parameters(settings, variables)
    for index, variable in enumerate(variables.averages):
        value = ops.convert_to_tensor(parameters[index])
        dtype = value.dtype
        momentum = ops.cast(ops.not_equal(updates, 0), dtype) * settings.ema_momentum
        moved = momentum * ops.convert_to_tensor(variable) + (1 - momentum) * value
        variable.assign(moved)
        if settings.ema_overwrite_frequency:
            overwrite = ops.equal((updates + 1) % settings.ema_overwrite_frequency, 0)
            targets = [variables.values[index]]
            if settings.config.attention:
                targets.append(variables.true_values[index])
            for target in targets:
                target.assign(
                    ops.where(overwrite, moved, ops.convert_to_tensor(target))
                )


def _parameters(settings, variables):
    """The variables that hold the parameters proper."""
    return variables.true_values if settings.config.attention else variables.values


def _joined(shards, axis=0):
    return ops.concatenate(shards, axis=axis) if len(shards) > 1 else shards[0]


def _tensor_levels(settings, state) -> TensorLevels:
    shapes = state_shapes(settings.layout, settings.config)
    return TensorLevels(
        *(
            ops.convert_to_tensor(state[name])
            if name in state
            else ops.zeros(shapes[name], "float32")
            for name in TensorLevels._fields
        )
    )


def _rate_sums(settings, rates):
    """`[tensors]` sums of the log learning rates, where they are an input."""
    if not settings.config.relative_learning_rate:
        return None
    layout = settings.layout
    return sum(
        sum_log_learning_rates(ops.convert_to_tensor(variable), layout, rows)
        for variable, rows in zip(rates, layout.shard_blocks, strict=True)
    )


def _accumulate(settings, variables, gradients, due):
    """Adds to the accumulators; returns the mean, which counts when `due`."""
    means = []
    for position, gradient in zip(settings.present, gradients, strict=True):
        variable = variables.accumulators[position]
        total = ops.convert_to_tensor(variable)
        total = total + ops.cast(gradient, total.dtype)
        variable.assign(ops.where(due, ops.zeros_like(total), total))
        means.append(total / settings.accumulation_steps)
    return means


def _pack(settings, gradients):
    tensors = [None] * settings.layout.num_tensors
    for position, gradient in zip(settings.present, gradients, strict=True):
        tensors[position] = gradient
    return packing.pack(tensors, settings.layout)


def _active(settings, packed, due):
    """Which tensors take part, and how many are left out as not finite.

    Returns:
        `[tensors]` float32 and an int32 scalar.
    """
    layout = settings.layout
    broken_blocks = ops.logical_not(ops.all(ops.isfinite(packed), axis=-1))
    broken = ops.segment_sum(
        ops.cast(broken_blocks, "float32"), layout.block_tensor, layout.num_tensors
    )
    present = np.zeros(layout.num_tensors, np.float32)
    present[list(settings.present)] = 1
    finite = ops.cast(ops.equal(broken, 0), "float32")
    takes_part = ops.convert_to_tensor(present)
    if due is not None:
        takes_part = takes_part * ops.cast(due, "float32")
    skipped = ops.cast(ops.sum(takes_part * (1 - finite)), "int32")
    return takes_part * finite, skipped


def _clip(settings, packed, active):
    """Clips packed gradients as Keras clips single ones."""
    layout = settings.layout
    if settings.clipvalue is not None:
        return ops.clip(packed, -settings.clipvalue, settings.clipvalue)
    limit = settings.clipnorm or settings.global_clipnorm
    if limit is None:
        return packed
    squares = ops.segment_sum(
        ops.sum(ops.square(packed), axis=-1), layout.block_tensor, layout.num_tensors
    )
    if settings.global_clipnorm is not None:
        squares = ops.sum(ops.where(active > 0, squares, 0.0))
        return packed * (limit / ops.maximum(ops.sqrt(squares), limit))
    scales = limit / ops.maximum(ops.sqrt(squares), limit)
    return packed * ops.take(scales, layout.block_tensor, axis=0)[:, None]


def runs_by_chunks() -> bool:
    """Whether this backend's device has caches that chunks should fit.

    PyTorch runs op by op, where a loop only costs; so does an accelerator.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return False


def without_gradients():
    """A context in which PyTorch records no graph; nothing elsewhere."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()
