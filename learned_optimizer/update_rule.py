"""The update rule of the hierarchical RNN, as a pure function of packed arrays.

    step = compute_step(gradients, state, layout, meta_parameters, config)
    values, state = values - step.step, step.state

and `update` does both. One piece of code serves the Keras optimizer, meta-training
and the SavedModel: it knows neither variables nor devices. The data goes one way
through it,

    state of tensors and problem → what each block needs of them (`block_inputs`)
        → the pass over all parameters (`parameter_pass.py`)
        → what a whole tensor must agree on: the length of its direction, the
          states of its RNN and of the problem's (`finish_step`),

`compute_step` runs the three for one shard; the Keras optimizer runs the middle
one for several shards at once.

Source: the released code of Wichrowska et al. 2017 (`hierarchical_rnn.py` of
tensorflow/models, research/learned_optimizer); the comments name its parts.
"""

from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.config import MIN_LOG_LEARNING_RATE, Config
from learned_optimizer.gru import feature_first, gru_step
from learned_optimizer.levels import Levels
from learned_optimizer.packing import Layout
from learned_optimizer.parameter_pass import STATE_FIELDS, pass_over_parameters

# Keeps the length of a zero direction finite (released code).
DIRECTION_EPSILON = 1e-16


class State(NamedTuple):
    """What the optimizer remembers. Features come first; absent ones have size 0.

    Attributes:
        hidden_state: `[10, blocks, block_size]`, hidden states of the parameters.
        gradient_averages: `[S, blocks, block_size]`.
        mean_squares: `[S, blocks, block_size]`.
        log_learning_rate: `[1, blocks, block_size]`, running averages of the log
            learning rates; `[0, ...]` without dynamic output scale.
        tensor_state: `[20, tensors]`, hidden states of the tensors.
        global_state: `[20, problems]`, hidden states of the problems.
        started: `[tensors]`, 0 until a tensor's first step and 1 from then on.
    """

    hidden_state: Any
    gradient_averages: Any
    mean_squares: Any
    log_learning_rate: Any
    tensor_state: Any
    global_state: Any
    started: Any


class TensorLevels(NamedTuple):
    """The part of the state that tensors and problems have, see `State`."""

    tensor_state: Any
    global_state: Any
    started: Any


class Step(NamedTuple):
    """What one step takes off the parameters.

    Attributes:
        step: `[blocks, block_size]`, to be subtracted from the parameters.
        attended_step: The same, from the same old parameters to where the next
            gradient is to be taken; None without attention.
        state: The new state.
    """

    step: Any
    attended_step: Any
    state: State


class Update(NamedTuple):
    """Result of one step.

    Attributes:
        values: `[blocks, block_size]`, the new parameters.
        attended_values: Where the next gradient is to be taken; `values` itself
            without attention.
        state: The new state.
    """

    values: Any
    attended_values: Any
    state: State


def state_shapes(layout: Layout, config: Config) -> dict[str, tuple]:
    """The shape of each field of the state; absent ones have a size of 0."""
    sizes = config.level_sizes + (0,) * (3 - config.levels)
    packed = (layout.num_blocks, layout.block_size)
    return {
        "hidden_state": (sizes[0], *packed),
        "gradient_averages": (config.gradient_timescales, *packed),
        "mean_squares": (config.gradient_timescales, *packed),
        "log_learning_rate": (int(config.dynamic_output_scale), *packed),
        "tensor_state": (sizes[1], layout.num_tensors),
        "global_state": (sizes[2], layout.num_problems),
        "started": (layout.num_tensors,),
    }


_START_LEVELS = {
    "hidden_state": "parameter",
    "tensor_state": "tensor",
    "global_state": "global",
}


def initial_field(
    name, layout: Layout, meta_parameters, config: Config, log_learning_rate
):
    """One field of the state before the first step, see `initial_state`."""
    shape = state_shapes(layout, config)[name]
    if name == "log_learning_rate" and config.dynamic_output_scale:
        rates = ops.clip(
            ops.cast(log_learning_rate, "float32"),
            MIN_LOG_LEARNING_RATE,
            config.max_log_learning_rate,
        )
        return ops.broadcast_to(rates, shape)
    if name not in _START_LEVELS or not shape[0]:
        return ops.zeros(shape, "float32")
    level = _START_LEVELS[name]
    start = Levels(meta_parameters, layout).get(f"{level}_start", level)
    start = feature_first(ops.convert_to_tensor(start)[..., 0, :], len(shape))
    return ops.broadcast_to(start, shape)


def initial_state(
    layout: Layout, meta_parameters, config: Config, log_learning_rate
) -> State:
    """The state before the first step.

    Args:
        layout: The layout of the parameters.
        meta_parameters: Their dict, with or without a problem axis.
        config: The architecture.
        log_learning_rate: Natural logarithm of the initial learning rate: a
            number, or an array that broadcasts against `[1, blocks, block_size]`.
            It is clipped to [-33, `config.max_log_learning_rate`].
    """
    return State(
        *(
            initial_field(name, layout, meta_parameters, config, log_learning_rate)
            for name in State._fields
        )
    )


def update(
    values, gradients, state, layout, meta_parameters, config, **options
) -> Update:
    """One step of the learned optimizer for all tensors of all problems.

    Args:
        values: `[blocks, block_size]` float32, the parameters (with attention:
            the true ones, not where the gradient was taken).
        gradients: `[blocks, block_size]` float32, see `compute_step`.
        state: The state that the previous step left.
        layout: Where each tensor lies.
        meta_parameters: Their dict.
        config: The architecture.
        **options: The keyword arguments of `compute_step`.

    Returns:
        An `Update`.
    """
    step = compute_step(
        gradients, state, layout, meta_parameters, config, values=values, **options
    )
    new_values = values - step.step
    attended_values = new_values
    if step.attended_step is not None:
        attended_values = values - step.attended_step
    return Update(new_values, attended_values, step.state)


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
) -> Step:
    """What the learned optimizer takes off all tensors of all problems.

    Args:
        gradients: `[blocks, block_size]` float32. Padding must be finite, and
            so must all tensors that are active.
        state: The state that the previous step left.
        layout: Where each tensor lies.
        meta_parameters: `{name: array}`; every array may carry a leading axis of
            problems (not together with chunks).
        config: The architecture.
        values: `[blocks, block_size]` float32, the parameters; only weight decay
            needs them.
        learning_rate: Multiplies the learned step.
        weight_decay: `[tensors]`, decoupled: `weight_decay * learning_rate *
            exp(eta + c) * value` is taken off, so that it follows each
            parameter's own step length (1 for the exponential without dynamic
            output scale); None: none.
        active: `[tensors]`, which tensors take part: 0 leaves a tensor and its
            state as they are, bit for bit, and out of every mean. None: all.
        num_chunks: How many chunks to run; 0, together with `active` all 0,
            makes the step a cheap no-operation. None: all.

    Returns:
        A `Step`.

    Raises:
        ValueError: If meta-parameters carry a problem axis and the layout chunks.
    """
    levels = Levels(meta_parameters, layout)
    if layout.shards > 1 or (levels.per_problem and layout.blocks_per_chunk):
        raise ValueError(
            "`compute_step` needs a layout of one shard, and without chunks where "
            "meta-parameters have a problem axis. Received: "
            f"shards={layout.shards}, blocks_per_chunk={layout.blocks_per_chunk}"
        )
    tensors = TensorLevels(state.tensor_state, state.global_state, state.started)
    rate_sums = None
    if config.relative_learning_rate:
        rate_sums = sum_log_learning_rates(state.log_learning_rate, layout)
    blocks = block_inputs(
        tensors, rate_sums, layout, levels, config, weight_decay, active
    )
    result = pass_over_parameters(
        {name: getattr(state, name) for name in STATE_FIELDS},
        gradients,
        None if weight_decay is None else values,
        blocks,
        levels,
        config,
        layout.blocks_per_chunk,
        num_chunks,
    )
    tensors, lengths = finish_tensors(
        tensors, result.sums, layout, levels, config, active
    )
    step, attended_step = finish_steps(
        result.steps, lengths, layout.block_tensor, config, learning_rate, active
    )
    return Step(step, attended_step, State(**result.state, **tensors._asdict()))


def sum_log_learning_rates(log_learning_rate, layout: Layout, rows=slice(None)):
    """`[tensors]` sums of `[1, blocks, block_size]` log learning rates.

    Args:
        log_learning_rate: Of all blocks, or of a shard.
        layout: Where each tensor lies.
        rows: Which blocks the shard has.
    """
    elements = ops.cast(layout.block_elements[rows], "float32")[:, None]
    positions = ops.arange(layout.block_size, dtype="float32")
    block_sums = ops.sum(
        ops.where(positions < elements, log_learning_rate[0], 0.0), axis=-1
    )
    return ops.segment_sum(block_sums, layout.block_tensor[rows], layout.num_tensors)


def block_inputs(
    tensors: TensorLevels, rate_sums, layout, levels, config, weight_decay, active
):
    """What the parameter pass needs of its tensor and problem, gathered a block.

    Args:
        tensors: Their state.
        rate_sums: From `sum_log_learning_rates`; None without that input.
        layout: Where each tensor lies.
        levels: Meta-parameters.
        config: The architecture.
        weight_decay: `[tensors]` or None.
        active: `[tensors]` or None.

    Returns:
        A dict of `[features, blocks, 1]`, see `pass_over_parameters`.
    """
    bias = levels.cell_bias("parameter", "tensor")
    if config.levels >= 2:
        bias = bias + levels.affine(
            "tensor_to_parameter", "tensor", tensors.tensor_state
        )
    if config.levels >= 3:
        global_state = ops.take(tensors.global_state, layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_parameter", "tensor", global_state)
    rows = (3 * config.level_sizes[0], layout.num_tensors)
    per_tensor = {
        "bias": ops.broadcast_to(bias, rows),
        "started": tensors.started[None],
    }
    if config.relative_learning_rate:
        means = _mean_log_learning_rate(rate_sums, layout, config, active)
        per_tensor["mean_log_learning_rate"] = means[None]
    if weight_decay is not None:
        per_tensor["weight_decay"] = ops.cast(weight_decay, "float32")[None]
    if active is not None:
        per_tensor["active"] = ops.cast(active, "float32")[None]
    per_block = {
        name: ops.take(value, layout.block_tensor, axis=1)[:, :, None]
        for name, value in per_tensor.items()
    }
    elements = ops.cast(layout.block_elements, "float32")
    per_block["elements"] = elements[None, :, None]
    return per_block


def _mean_log_learning_rate(sums, layout, config, active):
    """`[tensors]`, the mean over each tensor, or over the problem of each."""
    counts = ops.convert_to_tensor(layout.tensor_elements)
    if config.learning_rate_mean == "problem":
        if active is not None:
            sums = ops.where(active > 0, sums, 0.0)
            counts = ops.where(active > 0, counts, 0.0)
        sums, counts = (
            ops.take(_sum_over_problems(total, layout), layout.tensor_problem, axis=0)
            for total in (sums, counts)
        )
    return sums / ops.maximum(counts, 1.0)


def _sum_over_problems(per_tensor, layout):
    """`[problems, ...]` sums of `[tensors, ...]`."""
    return ops.segment_sum(per_tensor, layout.tensor_problem, layout.num_problems)


def finish_tensors(
    tensors: TensorLevels, sums, layout, levels, config, active
) -> tuple[TensorLevels, Any]:
    """The new state of tensors and problems, and the lengths of directions.

    Args:
        tensors: Their state before.
        sums: `[features, blocks]` of the parameter pass.
        layout: Where each tensor lies.
        levels: Meta-parameters.
        config: The architecture.
        active: `[tensors]` or None.

    Returns:
        The state, and `[directions, tensors]`: the inverse root mean square of
        each direction; None without dynamic output scale.
    """
    sums = ops.segment_sum(ops.transpose(sums), layout.block_tensor, layout.num_tensors)
    elements = ops.maximum(ops.convert_to_tensor(layout.tensor_elements), 1.0)
    means = ops.transpose(sums / elements[:, None])
    lengths = None
    if config.dynamic_output_scale:
        num_directions = 1 + config.attention
        lengths = ops.rsqrt(means[-num_directions:] + DIRECTION_EPSILON)
        means = means[:-num_directions]
    tensor_state, global_state = _update_upper_levels(
        means, tensors, layout, levels, config, active
    )
    started = ops.ones_like(tensors.started)
    if active is not None:
        started = ops.where(active > 0, started, tensors.started)
    return TensorLevels(tensor_state, global_state, started), lengths


def finish_steps(steps, lengths, block_tensor, config, learning_rate, active):
    """Steps at their length, of all blocks or of one shard.

    Args:
        steps: `[rows, blocks, block_size]` of the parameter pass.
        lengths: From `finish_tensors`.
        block_tensor: `[blocks]`, the tensor of each.
        config: The architecture.
        learning_rate: Multiplies them.
        active: `[tensors]` or None: steps of inactive tensors are 0.

    Returns:
        The step and the attended step (None without attention), each `[blocks,
        block_size]`.
    """
    num_directions = 1 + config.attention
    directions = [steps[i] for i in range(num_directions)]
    if config.dynamic_output_scale:
        directions = [
            direction * ops.take(lengths[i], block_tensor, axis=0)[:, None]
            for i, direction in enumerate(directions)
        ]
    if steps.shape[0] > num_directions:
        directions[0] = directions[0] + steps[num_directions]
    found = [learning_rate * direction for direction in directions]
    if active is not None:
        keep = ops.take(active, block_tensor, axis=0)[:, None] > 0
        found = [ops.where(keep, value, 0.0) for value in found]
    return found[0], found[1] if config.attention else None


def _update_upper_levels(means, tensors, layout, levels, config, active):
    """The new states of the tensors and of the problems.

    `means` are `[features, tensors]`, of the new hidden states and of the inputs.
    """
    if config.levels < 2:
        return tensors.tensor_state, tensors.global_state
    bias = levels.cell_bias("tensor", "tensor")
    if config.levels >= 3:
        global_state = ops.take(tensors.global_state, layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_tensor", "tensor", global_state)
    tensor_state = gru_step(levels.kernels("tensor"), means, tensors.tensor_state, bias)
    if active is not None:
        tensor_state = ops.where(active > 0, tensor_state, tensors.tensor_state)
    if config.levels < 3:
        return tensor_state, tensors.global_state

    weights = _global_weights(layout, config, active)
    weighted = ops.where(weights > 0, tensor_state * weights, 0.0)
    global_input = ops.transpose(_sum_over_problems(ops.transpose(weighted), layout))
    global_state = gru_step(
        levels.kernels("global"),
        global_input,
        tensors.global_state,
        levels.cell_bias("global", "global"),
    )
    if active is not None:
        any_active = _sum_over_problems(ops.cast(active > 0, "float32"), layout) > 0
        global_state = ops.where(any_active, global_state, tensors.global_state)
    return tensor_state, global_state


def _global_weights(layout, config, active):
    """`[tensors]`, the weight of each in its problem's input to the global RNN."""
    takes_part = ops.ones((layout.num_tensors,), "float32")
    if active is not None:
        takes_part = ops.cast(active > 0, "float32")
    if config.global_rnn_input == "all_tensors":
        counts = ops.take(
            _sum_over_problems(takes_part, layout), layout.tensor_problem, axis=0
        )
        return takes_part / ops.maximum(counts, 1.0)
    # The last tensor that takes part: the one with none of them at or after it.
    positions = ops.arange(layout.num_tensors, dtype="float32") * takes_part
    last = ops.take(
        ops.segment_max(positions, layout.tensor_problem, layout.num_problems),
        layout.tensor_problem,
        axis=0,
    )
    return takes_part * ops.cast(positions == last, "float32")
