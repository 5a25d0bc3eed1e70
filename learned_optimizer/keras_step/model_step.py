"""One step on a model's variables: everything around the update rule.

    accumulate → find what is finite → clip → update rule → constrain → average

In the middle stands `update_rule.compute_step`, whose three stages a backend can
compile; what touches a model's many tensors one by one, `collect` and `assign`, is
left to its plain operations.

It is written once, in `keras.ops`, for every backend and for each replica under
`tf.distribute`: gradients come in already summed over replicas, variables are
whatever can be read and assigned. No assignment stands inside a conditional;
whether an accumulated update is due, and which tensors take part, are masks.
"""

import contextlib
import dataclasses
import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.config import Config
from learned_optimizer.rule.gradients import Clipping
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.nominal_rate import Horizon
from learned_optimizer.rule.state import State
from learned_optimizer.rule.update_rule import Stages, compute_step, none_has_started


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What is fixed while a step runs.

    Attributes:
        layout: Arrangement of the learned tensors.
        config: The architecture.
        present: Positions of the tensors that have a gradient, one a gradient.
        is_present: `[tensors]`, 0 for those of them whose gradient is a stand-in; None:
            none is.
        weight_decay: `[tensors]`, or None.
        clipping: Limits of gradients.
        loss_scale_factor: Divides the gradients, or None.
        accumulation_steps: Calls an update takes, or None.
        ema_momentum: Momentum of the averages, None without them.
        ema_overwrite_frequency: As in Keras.
        constraints: A callable or None a tensor.
    """

    layout: Layout
    config: Config
    present: tuple[int, ...]
    is_present: Any = None
    weight_decay: Any = None
    clipping: Clipping = Clipping()
    loss_scale_factor: float | None = None
    accumulation_steps: int | None = None
    ema_momentum: float | None = None
    ema_overwrite_frequency: int | None = None
    constraints: tuple[Any, ...] = ()

    @property
    def numbers(self) -> dict[str, Any]:
        """The fields of `update` that are numbers, which may as well be tensors."""
        names = "weight_decay", "clipping", "loss_scale_factor", "accumulation_steps"
        return {"is_present": self.is_present} | {n: getattr(self, n) for n in names}


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
        total_steps: The number of updates of the whole training, 0 where it is not
            known, a list of one variable; empty without a nominal learning rate.
    """

    values: list[Any]
    true_values: list[Any]
    averages: list[Any]
    accumulators: list[Any]
    state: dict[str, Any]
    meta_parameters: dict[str, Any]
    skipped_steps: Any
    total_steps: list[Any] = []


def run(spec: StepSpec, variables: Variables, gradients, learning_rate, calls):
    """A whole step.

    There is a dense gradient for each of `spec.present`; `calls` says how often the
    optimizer was called before.
    """
    active = update(spec, variables, gradients, learning_rate, calls)
    constrain(spec, variables, active)
    average(spec, variables, calls)


def update(
    spec: StepSpec, variables: Variables, gradients, learning_rate, calls, stages=None
):
    """Accumulation, clipping and the update rule; arguments are those of `run`.

    `stages` are from `stages_in_place`, compiled or not; None: as they are. Returns
    `[tensors]` float32, 1 where a tensor was updated.
    """
    layout = spec.layout
    mean_squares = _before_the_first_update(spec, variables)
    gradients, due = collect(spec, variables, gradients, calls)
    active, num_chunks = spec.is_present, None
    if active is None:
        active = np.zeros(layout.num_tensors, np.float32)
        active[list(spec.present)] = 1
    active = ops.convert_to_tensor(active)
    if due is not None:
        active = active * ops.cast(due, "float32")
        num_chunks = ops.where(due, layout.num_chunks, 0)
    values = weight_decay = None
    if spec.weight_decay is not None:
        values = packing.pack_shards(
            [ops.convert_to_tensor(value) for value in _parameters(spec, variables)],
            layout,
        )
        weight_decay = ops.convert_to_tensor(spec.weight_decay)
    # Tensors, lest a compiled stage be compiled again for each number.
    limits = [
        limit if limit is None else ops.convert_to_tensor(limit, "float32")
        for limit in spec.clipping
    ]
    step = compute_step(
        gradients,
        State(**variables.state),
        layout,
        variables.meta_parameters,
        spec.config,
        values=values,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        active=active,
        num_chunks=num_chunks,
        clipping=Clipping(*limits),
        mean_squares=mean_squares,
        horizon=_horizon(spec, variables, calls),
        rounding=calls if _is_half(variables) else None,
        stages=stages or stages_in_place(layout, spec.config),
    )
    counter = variables.skipped_steps
    counter.assign(ops.convert_to_tensor(counter) + step.skipped)
    assign(spec, variables, step)
    return step.active


def _is_half(variables) -> bool:
    """Whether the state is kept in bfloat16."""
    hidden = variables.state["hidden_state"]
    hidden = hidden[0] if isinstance(hidden, list) else hidden
    return keras.backend.standardize_dtype(hidden.dtype) == "bfloat16"


def _horizon(spec, variables, calls):
    """The `Horizon` of the model, in updates; None without a nominal learning rate."""
    if not variables.total_steps:
        return None
    steps = ops.convert_to_tensor(calls)
    if spec.accumulation_steps is not None:
        steps = steps // ops.cast(spec.accumulation_steps, steps.dtype)
    return Horizon(ops.convert_to_tensor(variables.total_steps[0]), steps)


def _before_the_first_update(spec, variables):
    """Takes what the rule must know of the parameters at their start from the model.

    They may have been loaded after the optimizer was built. With attention they become
    the true values. Returns `[tensors]` mean squares; zeros after the first update,
    None where none are needed.
    """
    is_first = none_has_started(variables.state)
    if spec.config.attention:
        for true_value, variable in zip(
            variables.true_values, variables.values, strict=True
        ):
            old = ops.convert_to_tensor(true_value)
            value = ops.cast(ops.convert_to_tensor(variable), old.dtype)
            true_value.assign(ops.where(is_first, value, old))
    if spec.config.nominal is None:
        return None

    def mean_square(variable):
        value = ops.cast(ops.convert_to_tensor(variable), "float32")
        return ops.sum(ops.square(value)) / max(1, math.prod(value.shape))

    def mean_squares():
        return ops.stack([mean_square(variable) for variable in variables.values])

    # A conditional, since each operation on each of many tensors counts.
    return ops.cond(
        is_first,
        mean_squares,
        lambda: ops.zeros((spec.layout.num_tensors,), "float32"),
    )


def stages_in_place(layout: Layout, config: Config, compiled=lambda stage: stage):
    """The rule's stages on variables of the state, which they update.

    Each stage is put through `compiled`.
    """

    def in_place(stage):
        def run_stage(variables, *inputs):
            state, result = stage(variables, *inputs)
            for name, value in state.items():
                variables[name].assign(value)
            return {}, result

        return compiled(run_stage)

    stages = Stages.of(layout, config, in_place)
    if keras.backend.backend() == "torch" and layout.num_chunks > 1:
        stages = stages._replace(update_parameters=_by_slices(layout, config))
    return stages


def _by_slices(layout: Layout, config: Config):
    """The pass over a shard for PyTorch, which can write to a slice of an array.

    The loop of the rule would copy the whole state at each turn there.
    """
    size = layout.blocks_per_chunk
    in_one = dataclasses.replace(layout, blocks_per_chunk=None)
    update_parameters = Stages.of(in_one, config).update_parameters

    def run_stage(variables, gradients, values, blocks, *rest):
        # Gradients are clipped ones; values may be a variable of the model itself.
        steps, sums = {"step": gradients[None]}, []
        others = {"decay": values is not None, "attended_step": config.attention}
        for name in others:
            if others[name]:
                steps[name] = ops.zeros_like(gradients[None])
        for start in range(0, gradients.shape[0], size):
            rows = slice(start, start + size)
            state = {n: variable.value[:, rows] for n, variable in variables.items()}
            new_state, (new_steps, new_sums) = update_parameters(
                state,
                gradients[rows],
                None if values is None else values[rows],
                {name: value[:, rows] for name, value in blocks.items()},
                *rest,
            )
            for name, value in new_state.items():
                state[name].copy_(value)
            for name, value in new_steps.items():
                steps[name][:, rows].copy_(value)
            sums.append(new_sums)
        return {}, (steps, ops.concatenate(sums, axis=1))

    return run_stage


def collect(spec: StepSpec, variables: Variables, gradients, calls):
    """Unscales, accumulates and packs gradients, `[blocks, block_size]` of each shard.

    Returns them and whether an accumulated update is due; None without accumulation.
    """
    due = None
    if spec.loss_scale_factor is not None:
        # In float32, lest a small gradient of half precision vanish.
        gradients = [
            ops.cast(gradient, "float32") / spec.loss_scale_factor
            for gradient in gradients
        ]
    if spec.accumulation_steps is not None:
        due = ops.equal((calls + 1) % spec.accumulation_steps, 0)
        gradients = _accumulate(spec, variables, gradients, due)
    given = dict(zip(spec.present, gradients, strict=True))
    tensors = [given.get(position) for position in range(spec.layout.num_tensors)]
    return packing.pack_shards(tensors, spec.layout), due


def assign(spec: StepSpec, variables: Variables, step):
    """Takes a `Step` off the model's variables."""
    steps = packing.unpack(step.step, spec.layout)
    parameters = _parameters(spec, variables)
    if spec.config.attention:
        attended_steps = packing.unpack(step.attended_step, spec.layout)
    for position in spec.present:
        parameter = parameters[position]
        if spec.config.attention:
            # A tensor that takes no part keeps its attended location.
            old = ops.convert_to_tensor(variables.values[position])
            value = ops.convert_to_tensor(parameter)
            location = value - ops.cast(attended_steps[position], value.dtype)
            is_active = step.active[position] > 0
            variables.values[position].assign(
                ops.where(is_active, ops.cast(location, old.dtype), old)
            )
        # One operation where reading, subtracting and assigning are three.
        parameter.assign_sub(ops.cast(steps[position], parameter.dtype))


def constrain(spec: StepSpec, variables: Variables, active):
    """Applies the variables' constraints to what was updated."""
    parameters = _parameters(spec, variables)
    for position in spec.present:
        constraint = spec.constraints[position]
        if constraint is not None:
            value = ops.convert_to_tensor(parameters[position])
            parameters[position].assign(
                ops.where(active[position] > 0, constraint(value), value)
            )


def average(spec: StepSpec, variables: Variables, calls):
    """Moves the averages, and overwrites by them when that is due.

    As Keras does it, at every call: with momentum 0 until the first update.
    """
    if spec.ema_momentum is None:
        return
    updates = calls // (spec.accumulation_steps or 1)
    parameters = _parameters(spec, variables)
    for index, variable in enumerate(variables.averages):
        value = ops.convert_to_tensor(parameters[index])
        dtype = value.dtype
        momentum = ops.cast(ops.not_equal(updates, 0), dtype) * spec.ema_momentum
        old = ops.convert_to_tensor(variable)
        moved = momentum * ops.cast(old, dtype) + (1 - momentum) * value
        moved = ops.cast(moved, old.dtype)
        variable.assign(moved)
        if spec.ema_overwrite_frequency:
            overwrite = ops.equal((updates + 1) % spec.ema_overwrite_frequency, 0)
            targets = [variables.values[index]]
            if spec.config.attention:
                targets.append(variables.true_values[index])
            for target in targets:
                current = ops.convert_to_tensor(target)
                target.assign(
                    ops.where(overwrite, ops.cast(moved, current.dtype), current)
                )


def _parameters(spec, variables):
    """The variables that hold the parameters proper."""
    return variables.true_values if spec.config.attention else variables.values


def _accumulate(spec, variables, gradients, due):
    """Adds to the accumulators; returns the mean, which counts when `due`.

    As in Keras, all of them start afresh when it is due: what a tensor without a
    gradient in that call had gathered would belong to no later mean.
    """
    totals = [ops.convert_to_tensor(variable) for variable in variables.accumulators]
    for position, gradient in zip(spec.present, gradients, strict=True):
        total = totals[position]
        totals[position] = total + ops.cast(gradient, total.dtype)
    for variable, total in zip(variables.accumulators, totals, strict=True):
        variable.assign(ops.where(due, ops.zeros_like(total), total))
    present = [totals[position] for position in spec.present]
    return [x / ops.cast(spec.accumulation_steps, x.dtype) for x in present]


def assign_copy(variable, other):
    """Assigns another variable's value; a copy, as JAX gives both away at a step."""
    value = ops.copy(ops.convert_to_tensor(other))
    variable.assign(ops.cast(value, variable.dtype))


def without_gradients():
    """A context in which PyTorch records no graph; nothing elsewhere."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()
