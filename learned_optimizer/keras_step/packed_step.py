"""The update rule around its pass over parameters, on packed arrays, in three parts.

    prepare → advance, a shard at a time or side by side → finish

They read and assign the variables of the optimizer's state and see no model: a backend
may compile each apart.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.gradients import LARGEST_GRADIENT, finite_tensors
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.levels import Levels
from learned_optimizer.rule.parameter_level import STATE_FIELDS, pass_over_parameters
from learned_optimizer.rule.tensor_level import (
    TensorLevels,
    block_inputs,
    finish_steps,
    finish_tensors,
    sum_log_learning_rates,
)
from learned_optimizer.rule.update_rule import state_shapes


@dataclasses.dataclass(frozen=True)
class Settings:
    """What does not change from step to step.

    Attributes:
        layout: Arrangement of the learned tensors.
        config: The architecture.
        present: Positions of the tensors that have a gradient, one a gradient. The
            parts of this module know them from `Collected` alone.
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

    def of_parts(self) -> tuple[Any, ...]:
        """What the parts of a step depend on and a user can change, hashable."""
        decay = None if self.weight_decay is None else self.weight_decay.tobytes()
        return (
            *(decay, self.clipnorm, self.clipvalue, self.global_clipnorm),
            *(self.loss_scale_factor, self.accumulation_steps),
        )


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


class Collected(NamedTuple):
    """A model's tensors, packed.

    Attributes:
        gradients: `[blocks, block_size]`.
        values: The same of the parameters; None without weight decay.
        due: Whether an accumulated update is due; None without accumulation.
        present: `[tensors]` float32, 1 where there is a gradient.
    """

    gradients: Any
    values: Any
    due: Any
    present: Any


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
    active, skipped = _active(settings.layout, collected)
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


def _active(layout, collected):
    """Which tensors take part, and how many are left out as not finite.

    Returns:
        `[tensors]` float32 and an int32 scalar.
    """
    finite = finite_tensors(collected.gradients, layout)
    takes_part = collected.present
    if collected.due is not None:
        takes_part = takes_part * ops.cast(collected.due, "float32")
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
