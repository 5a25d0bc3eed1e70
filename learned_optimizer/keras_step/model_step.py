"""One step on a model's variables: everything around the update rule.

    accumulate → find what is finite → clip → update rule → constrain → average

In the middle stands the update rule, in the parts of `packed_step.py`, which a backend
can compile; what touches a model's many tensors one by one, `collect` and `assign`, is
left to its plain operations.

It is written once, in `keras.ops`, for every backend and for each replica under
`tf.distribute`: gradients come in already summed over replicas, variables are
whatever can be read and assigned. No assignment stands inside a conditional;
whether an accumulated update is due, and which tensors take part, are masks.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from learned_optimizer.keras_step.packed_step import (
    Collected,
    Prepared,
    Settings,
    parts_of,
)
from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.parameter_level import STATE_FIELDS
from learned_optimizer.rule.tensor_level import TensorLevels


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
    present = np.zeros(settings.layout.num_tensors, np.float32)
    present[list(settings.present)] = 1
    return Collected(
        _pack(settings, gradients), values, due, ops.convert_to_tensor(present)
    )


def shards(variables: Variables, prepared: Prepared):
    """State variables, gradients, values and block inputs, shard by shard."""
    fields = [name for name in STATE_FIELDS if name in variables.state]
    for index, inputs in enumerate(
        zip(prepared.gradients, prepared.values, prepared.blocks, strict=True)
    ):
        yield {name: variables.state[name][index] for name in fields}, *inputs


def assign(settings: Settings, variables: Variables, step, attended_step, active):
    """Takes the step, and the attended step, off the model's variables."""
    steps = packing.unpack(step, settings.layout)
    parameters = _parameters(settings, variables)
    if settings.config.attention:
        attended_steps = packing.unpack(attended_step, settings.layout)
    for position in settings.present:
        parameter = parameters[position]
        if settings.config.attention:
            # A tensor that takes no part keeps its attended location.
            old = ops.convert_to_tensor(variables.values[position])
            value = ops.convert_to_tensor(parameter)
            location = value - ops.cast(attended_steps[position], value.dtype)
            variables.values[position].assign(
                ops.where(active[position] > 0, ops.cast(location, old.dtype), old)
            )
        # One operation where reading, subtracting and assigning are three.
        parameter.assign_sub(ops.cast(steps[position], parameter.dtype))


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
        old = ops.convert_to_tensor(variable)
        moved = momentum * ops.cast(old, dtype) + (1 - momentum) * value
        moved = ops.cast(moved, old.dtype)
        variable.assign(moved)
        if settings.ema_overwrite_frequency:
            overwrite = ops.equal((updates + 1) % settings.ema_overwrite_frequency, 0)
            targets = [variables.values[index]]
            if settings.config.attention:
                targets.append(variables.true_values[index])
            for target in targets:
                current = ops.convert_to_tensor(target)
                target.assign(
                    ops.where(overwrite, ops.cast(moved, current.dtype), current)
                )


def _parameters(settings, variables):
    """The variables that hold the parameters proper."""
    return variables.true_values if settings.config.attention else variables.values


def _accumulate(settings, variables, gradients, due):
    """Adds to the accumulators; returns the mean, which counts when `due`.

    As in Keras, all of them start afresh when it is due: what a tensor without a
    gradient in that call had gathered would belong to no later mean.
    """
    totals = [ops.convert_to_tensor(variable) for variable in variables.accumulators]
    for position, gradient in zip(settings.present, gradients, strict=True):
        total = totals[position]
        totals[position] = total + ops.cast(gradient, total.dtype)
    for variable, total in zip(variables.accumulators, totals, strict=True):
        variable.assign(ops.where(due, ops.zeros_like(total), total))
    return [
        totals[position] / settings.accumulation_steps for position in settings.present
    ]


def _pack(settings, gradients):
    tensors = [None] * settings.layout.num_tensors
    for position, gradient in zip(settings.present, gradients, strict=True):
        tensors[position] = gradient
    return packing.pack(tensors, settings.layout)


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
