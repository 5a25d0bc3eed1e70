"""The update rule of the hierarchical RNN, as a pure function of packed arrays.

    step = compute_step(gradients, state, layout, meta_parameters, config)
    values, state = values - step.step, step.state

It knows neither variables nor devices. Three stages make a step, and `compute_step` is
the one place that runs them one after another:

    prepare            what each block needs of its tensor and problem
    update_parameters  the pass over the parameters of a shard (`parameter_level.py`)
    update_tensors     what a whole tensor agrees on (`tensor_level.py`)

Meta-training and the SavedModel run them as they are; the Keras optimizer compiles
each, and lets the shards' passes run side by side.

Source: the released code of Wichrowska et al. 2017 (`hierarchical_rnn.py` of
tensorflow/models, research/learned_optimizer); the comments name its parts.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.gradients import Clipping, clean_gradients, gradient_sizes
from learned_optimizer.rule.half_precision import block_seeds
from learned_optimizer.rule.layout import Layout, concatenated
from learned_optimizer.rule.levels import Levels
from learned_optimizer.rule.nominal_rate import Horizon, log_sizes
from learned_optimizer.rule.parameter_level import update_parameters
from learned_optimizer.rule.state import PARAMETER_FIELDS, State, fields_of
from learned_optimizer.rule.tensor_level import (
    block_inputs,
    sum_log_learning_rates,
    update_tensors,
)


class Step(NamedTuple):
    """What one step takes off the parameters.

    Attributes:
        step: `[blocks, block_size]`, to be subtracted from the parameters; a list, an
            array a shard, where gradients are a list.
        attended_step: The same, from the same old parameters to where the next
            gradient is to be taken; None without attention.
        state: The new state.
        active: `[tensors]`, 1 where a tensor was updated; None: all were.
        skipped: Number of tensors left out since their gradient is not finite, an
            int32 scalar; None without `clipping`.
    """

    step: Any
    attended_step: Any
    state: State
    active: Any = None
    skipped: Any = None

    def applied_to(self, values) -> "Update":
        """The update of parameters (with attention: the true ones) by this step."""
        values = ops.convert_to_tensor(values)
        new_values = attended_values = values - self.step
        if self.attended_step is not None:
            attended_values = values - self.attended_step
        return Update(new_values, attended_values, self.state)


class Update(NamedTuple):
    """New parameters, `[blocks, block_size]`, and the new state after one step.

    `attended_values` is where the next gradient is to be taken; without attention it is
    `values` itself.
    """

    values: Any
    attended_values: Any
    state: State


class Prepared(NamedTuple):
    """What `prepare` hands to the other stages.

    Attributes:
        gradients: `[blocks, block_size]` of each shard.
        values: The same; a list of None without weight decay.
        blocks: `{name: [features, blocks, 1]}` of each shard, from `block_inputs`.
        meta_parameters: Their values.
        active: As in `Step`.
        skipped: As in `Step`.
    """

    gradients: list[Any]
    values: list[Any]
    blocks: list[dict[str, Any]]
    meta_parameters: dict[str, Any]
    active: Any
    skipped: Any


class Stages(NamedTuple):
    """The three stages of a step.

    Each takes a dict of state fields first and returns a dict of those it changed,
    with its result. A caller may wrap them: compile them, or assign the state to
    variables and return an empty dict.
    """

    prepare: Callable
    update_parameters: Callable
    update_tensors: Callable

    @classmethod
    def of(cls, layout: Layout, config: Config, wrapper=lambda stage: stage):
        """The stages for an arrangement and an architecture, put through `wrapper`."""
        stages = (prepare, update_parameters, update_tensors)
        return cls(
            *(wrapper(functools.partial(stage, layout, config)) for stage in stages)
        )


def compute_step(
    gradients,
    state: State,
    layout: Layout,
    meta_parameters,
    config: Config,
    *,
    values=None,
    learning_rate=1.0,
    weight_decay=None,
    active=None,
    num_chunks=None,
    clipping: Clipping | None = None,
    mean_squares=None,
    horizon: Horizon | None = None,
    rounding=None,
    stages: Stages | None = None,
) -> Step:
    """What the learned optimizer takes off all tensors of all problems.

    Args:
        gradients: `[blocks, block_size]` float32, or a list of them, one a shard.
            Padding must be finite, and so must all tensors that are active.
        state: The state that the previous step left; where the layout has several
            shards, the fields of parameters are lists, an array a shard.
        layout: Where each tensor lies.
        meta_parameters: `{name: array}`; every array may carry a leading axis of
            problems (in a layout of one shard and no chunks).
        config: The architecture.
        values: Like `gradients`, the parameters; only weight decay needs them.
        learning_rate: Multiplies the learned step.
        weight_decay: `[tensors]`, decoupled: `weight_decay * learning_rate *
            exp(eta + c) * value` is taken off, so that it follows each
            parameter's own step length (1 for the exponential without dynamic
            output scale); None: none.
        active: `[tensors]`, which tensors take part: 0 leaves a tensor and its
            state as they are, bit for bit, and out of every mean. None: all.
        num_chunks: How many chunks to run; 0, together with `active` all 0,
            makes the step a cheap no-operation. None: all.
        clipping: Clips gradients, and leaves out tensors whose gradient is not
            finite. None: gradients are taken as they are.
        mean_squares: `[tensors]`, mean squares of the parameters. The first step in
            which any tensor moves takes the sizes of all tensors from them, which a
            nominal learning rate needs. None: the state holds the sizes.
        horizon: The known number of steps of each problem, which the nominal learning
            rate then follows. None: none is known.
        rounding: The number of the step, by which a state in bfloat16 is rounded; None
            where all of it is float32.
        stages: From `Stages.of`, for this layout and architecture. None: as they are.

    Returns:
        A `Step`.

    Raises:
        ValueError: If meta-parameters carry a problem axis and the layout chunks or
            shards, or if the state is not of the layout's shards.
    """
    levels = Levels(meta_parameters, layout)
    if levels.per_problem and (layout.shards > 1 or layout.blocks_per_chunk):
        raise ValueError(
            "The layout must have one shard and no chunks where meta-parameters have "
            f"a problem axis. Received: shards={layout.shards}, "
            f"blocks_per_chunk={layout.blocks_per_chunk}"
        )
    stages = stages or Stages.of(layout, config)
    upper, shards = _split(state, layout, config)
    in_shards = isinstance(gradients, list)
    changed, prepared = stages.prepare(
        upper,
        [shard.get("log_learning_rate") for shard in shards],
        meta_parameters,
        _shards_of(gradients, layout),
        _shards_of(None if weight_decay is None else values, layout),
        weight_decay,
        active,
        clipping,
        mean_squares,
        horizon,
        rounding,
    )
    upper |= changed
    steps, sums = [], []
    parts = (prepared.gradients, prepared.values, prepared.blocks)
    for index, shard in enumerate(shards):
        # Taken out of the lists, so that one that is done with takes no memory.
        inputs = [part.pop(0) for part in parts]
        shards[index], passed = stages.update_parameters(
            shard, *inputs, prepared.meta_parameters, num_chunks
        )
        del inputs
        steps.append(passed[0])
        sums.append(passed[1])
    changed, (step, attended_step) = stages.update_tensors(
        upper,
        steps,
        sums,
        prepared.meta_parameters,
        prepared.active,
        learning_rate,
        horizon if config.horizon_input else None,
    )
    state = _joined(state, shards, upper | changed)
    if not in_shards:
        step = concatenated(step)
        attended_step = attended_step and concatenated(attended_step)
    return Step(step, attended_step, state, prepared.active, prepared.skipped)


def prepare(
    layout,
    config,
    state,
    rates,
    meta_parameters,
    gradients,
    values,
    weight_decay,
    active,
    clipping,
    mean_squares,
    horizon,
    rounding,
):
    """The first stage: everything that comes before the pass over parameters.

    `state` is `{field: array}` of tensors and problems; `rates`, which are log learning
    rates, `gradients` and `values` are lists, an array or None for each shard. The
    other arguments are those of `compute_step`. Returns the sizes, where they are
    read, and a `Prepared`.
    """
    state = _arrays(state)
    meta_parameters = _arrays(meta_parameters)
    skipped = None
    if clipping is not None:
        gradients, active, skipped = clean_gradients(
            gradients, active, layout, clipping
        )
    changed = {}
    if config.nominal and mean_squares is not None:
        # All at once, since they depend on one another.
        is_first = none_has_started(state)
        if active is not None:
            is_first = ops.logical_and(is_first, ops.max(active) > 0)
        sizes = log_sizes(mean_squares, layout, config.nominal)
        changed["log_size"] = ops.where(is_first, sizes, state["log_size"])
        state |= changed
    rate_sums = None
    if config.relative_learning_rate:
        rate_sums = sum(
            sum_log_learning_rates(ops.convert_to_tensor(shard), layout, rows)
            for shard, rows in zip(rates, layout.shard_blocks, strict=True)
        )
    if config.gradient_decline:
        summed = gradients
        if rate_sums is not None and len(gradients) > 1:
            # After the rates, or copies of both may lie in memory at once. They are
            # finite, which a compiler does not know.
            are_summed = ops.isfinite(ops.max(rate_sums))
            summed = [ops.where(are_summed, shard, 0.0) for shard in gradients]
        sizes = gradient_sizes(summed, state, layout, active)
        changed |= sizes
        state |= sizes
    levels = Levels(meta_parameters, layout)
    if horizon is not None:
        horizon = horizon.of_tensors(layout)
    blocks = block_inputs(
        state, rate_sums, layout, levels, config, weight_decay, active, horizon
    )
    if rounding is not None:
        blocks["rounding"] = block_seeds(rounding, layout.num_blocks)
    blocks = [
        {name: value[:, rows] for name, value in blocks.items()}
        for rows in layout.shard_blocks
    ]
    return changed, Prepared(
        gradients, values, blocks, meta_parameters, active, skipped
    )


def none_has_started(state: dict):
    """Whether no tensor has made a step, a boolean scalar."""
    return ops.equal(ops.max(ops.convert_to_tensor(state["started"])), 0)


def _arrays(values):
    """Arrays of what may be variables."""
    return {name: ops.convert_to_tensor(value) for name, value in values.items()}


def _shards_of(packed, layout):
    """A list of an array, or None, for each shard, of a list, one array or None."""
    if isinstance(packed, list):
        return packed
    if layout.shards == 1:
        return [packed if packed is None else ops.convert_to_tensor(packed)]
    return [packed if packed is None else packed[rows] for rows in layout.shard_blocks]


def _split(state, layout, config):
    """The fields there are: a dict of those of tensors and problems, one a shard."""
    upper, shards = {}, [{} for _ in range(layout.shards)]
    for name in fields_of(config):
        value = getattr(state, name)
        if name not in PARAMETER_FIELDS:
            upper[name] = value
            continue
        pieces = value if isinstance(value, list) else [value]
        if len(pieces) != layout.shards:
            raise ValueError(
                f"The state's {name!r} must be a list of {layout.shards} arrays, one a "
                f"shard. Received: {len(pieces)}"
            )
        for shard, piece in zip(shards, pieces, strict=True):
            shard[name] = piece
    return upper, shards


def _joined(state, shards, upper):
    """The reverse: `state` with these fields."""
    for name in shards[0]:
        pieces = [shard[name] for shard in shards]
        upper[name] = pieces if isinstance(getattr(state, name), list) else pieces[0]
    return state._replace(**upper)
