"""One step on a model's variables: everything around the update rule.

    accumulate → find what is finite → clip → update rule → constrain → average

It is written once, in `keras.ops`, for every backend and for each replica under
`tf.distribute`: gradients come in already summed over replicas, variables are
whatever can be read and assigned. No assignment stands inside a conditional;
whether an accumulated update is due, and which tensors take part, are masks.
"""

import contextlib
import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from learned_optimizer import packing
from learned_optimizer.config import Config
from learned_optimizer.packing import Layout
from learned_optimizer.update_rule import State, compute_step, state_shapes


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
        state: `{field of State: variable}`, without those of size 0.
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


def update(settings: Settings, variables: Variables, gradients, learning_rate, calls):
    """Accumulation, clipping and the update rule.

    Returns:
        `[tensors]` float32, 1 where a tensor was updated.
    """
    layout, config = settings.layout, settings.config
    due = None
    if settings.loss_scale_factor is not None:
        gradients = [gradient / settings.loss_scale_factor for gradient in gradients]
    if settings.accumulation_steps:
        due = ops.equal((calls + 1) % settings.accumulation_steps, 0)
        gradients = _accumulate(settings, variables, gradients, due)
    packed = _pack(settings, gradients)
    active, skipped = _active(settings, packed, due)
    packed = _clip(settings, packed, active)

    shapes = state_shapes(layout, config)
    state = State(
        *(
            ops.convert_to_tensor(variables.state[name])
            if name in variables.state
            else ops.zeros(shapes[name], "float32")
            for name in State._fields
        )
    )
    meta_parameters = {
        name: ops.convert_to_tensor(value)
        for name, value in variables.meta_parameters.items()
    }
    parameters = variables.true_values if config.attention else variables.values
    values = None
    if settings.weight_decay is not None:
        values = packing.pack(
            [ops.convert_to_tensor(parameter) for parameter in parameters], layout
        )
    num_chunks = None
    if due is not None:
        num_chunks = ops.where(due, layout.num_chunks, 0)
    step = compute_step(
        packed,
        state,
        layout,
        meta_parameters,
        config,
        values=values,
        learning_rate=learning_rate,
        weight_decay=settings.weight_decay,
        active=active,
        num_chunks=num_chunks,
    )
    _assign_values(settings, variables, parameters, step, active)
    for name, variable in variables.state.items():
        variable.assign(getattr(step.state, name))
    variables.skipped_steps.assign(
        ops.convert_to_tensor(variables.skipped_steps) + skipped
    )
    return active


def constrain(settings: Settings, variables: Variables, active):
    """Applies the variables' constraints to what was updated."""
    parameters = (
        variables.true_values if settings.config.attention else variables.values
    )
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
    parameters = (
        variables.true_values if settings.config.attention else variables.values
    )
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
    takes_part = present if due is None else present * ops.cast(due, "float32")
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


def _assign_values(settings, variables, parameters, step, active):
    steps = packing.unpack(step.step, settings.layout)
    attended = steps
    if settings.config.attention:
        attended = packing.unpack(step.attended_step, settings.layout)
    for position in settings.present:
        value = ops.convert_to_tensor(parameters[position])
        if settings.config.attention:
            # A tensor that takes no part keeps its attended location.
            old = ops.convert_to_tensor(variables.values[position])
            location = value - ops.cast(attended[position], value.dtype)
            variables.values[position].assign(
                ops.where(active[position] > 0, location, old)
            )
        parameters[position].assign(value - ops.cast(steps[position], value.dtype))


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
