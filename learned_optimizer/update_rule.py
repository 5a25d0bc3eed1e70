"""The update rule of the hierarchical RNN, as a pure function of packed arrays.

    step = compute_step(gradients, state, layout, meta_parameters, config)
    values, state = values - step.step, step.state

and `update` does both. One piece of code serves the Keras optimizer, meta-training and the SavedModel:
it knows neither variables nor devices. The data goes one way through it,

    gradients → averages, mean squares → RNN inputs → parameter RNN
        → direction, log learning rate → step,

once over all parameters, chunk by chunk so that a chunk stays in the cache; what
a whole tensor must agree on (the length of its direction, the input of its RNN)
is summed on the way and applied in a short second pass.

Source: the released code of Wichrowska et al. 2017 (`hierarchical_rnn.py` of
tensorflow/models, research/learned_optimizer); the comments name its parts.
"""

from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.config import MIN_LOG_LEARNING_RATE, Config
from learned_optimizer.features import (
    decay_sigmoid,
    rnn_inputs,
    scale_gradients,
)
from learned_optimizer.gru import (
    GRUKernels,
    affine,
    feature_first,
    gru_step,
    linear,
    sigmoid,
)
from learned_optimizer.packing import Layout

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
    start = _Levels(meta_parameters, layout).get(f"{level}_start", level)
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
    levels = _Levels(meta_parameters, layout)
    if levels.per_problem and layout.blocks_per_chunk is not None:
        raise ValueError(
            "Meta-parameters with a problem axis need a layout without chunks. "
            f"Received: blocks_per_chunk={layout.blocks_per_chunk}"
        )
    blocks = _block_inputs(state, layout, levels, config, weight_decay, active)
    arrays = {
        "hidden_state": state.hidden_state,
        "gradient_averages": state.gradient_averages,
        "mean_squares": state.mean_squares,
        "log_learning_rate": state.log_learning_rate,
        "gradient": gradients[None],
    }
    if weight_decay is not None:
        arrays["values"] = values[None]
    if layout.blocks_per_chunk is None:
        outputs = _update_parameters(arrays, blocks, levels, config)
    else:
        outputs = _update_by_chunks(arrays, blocks, layout, levels, config, num_chunks)
    return _update_tensors(state, outputs, layout, levels, config, learning_rate, active)


class _Levels:
    """Meta-parameters as the rows of each level need them: shared, or gathered.

    The rows of the levels are blocks ("parameter"), tensors and problems
    ("global").
    """

    def __init__(self, meta_parameters, layout):
        self._values = meta_parameters
        self._layout = layout
        self.per_problem = len(meta_parameters["parameter_gates_kernel"].shape) == 3

    def get(self, name, level):
        """The array called `name` for the rows of `level`."""
        value = self._values[name]
        if not self.per_problem or level == "global":
            return value
        if level == "parameter":
            return ops.take(value, self._layout.block_problem, axis=0)
        return ops.take(value, self._layout.tensor_problem, axis=0)

    def has(self, name):
        """Whether the architecture has the array called `name`."""
        return name in self._values

    def affine(self, name, level, x):
        """`x` through the kernel and bias called `name`."""
        return affine(
            self.get(f"{name}_kernel", level), self.get(f"{name}_bias", level), x
        )

    def readout(self, name, hidden):
        """`[size, blocks, block_size]` through weights and bias: `[1, ...]`."""
        value = linear(self.get(f"{name}_weights", "parameter"), hidden)
        if self.has(f"{name}_bias"):
            value = value + feature_first(self.get(f"{name}_bias", "parameter"), 3)
        return value

    def scalar(self, name):
        """A scalar that broadcasts against `[1, blocks, block_size]`."""
        value = self.get(name, "parameter")
        return ops.reshape(value, (1, -1, 1)) if self.per_problem else value

    def kernels(self, level) -> GRUKernels:
        """The kernels of a level's cell."""
        return GRUKernels(
            self.get(f"{level}_gates_kernel", level),
            self.get(f"{level}_candidate_kernel", level),
        )

    def cell_bias(self, cell, level):
        """The bias of `cell`, `[3 * size, 1 or rows]`, for the rows of `level`."""
        parts = [self.get(f"{cell}_{name}_bias", level) for name in ("gates", "candidate")]
        return feature_first(ops.concatenate(parts, axis=-1), 2)


def _block_inputs(state, layout, levels, config, weight_decay, active):
    """What the parameter pass needs of its tensor and problem, gathered a block.

    Returns:
        A dict of `[features, blocks, 1]`: `bias` of the parameter RNN, `started`,
        `elements`, and where they are needed `mean_log_learning_rate`,
        `weight_decay` and `active`.
    """
    bias = levels.cell_bias("parameter", "tensor")
    if config.levels >= 2:
        bias = bias + levels.affine("tensor_to_parameter", "tensor", state.tensor_state)
    if config.levels >= 3:
        global_state = ops.take(state.global_state, layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_parameter", "tensor", global_state)
    rows = (3 * config.level_sizes[0], layout.num_tensors)
    per_tensor = {
        "bias": ops.broadcast_to(bias, rows),
        "started": state.started[None],
    }
    if config.relative_learning_rate:
        per_tensor["mean_log_learning_rate"] = _mean_log_learning_rate(
            state.log_learning_rate[0], layout, config, active
        )[None]
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


def _mean_log_learning_rate(log_learning_rate, layout, config, active):
    """`[tensors]`, the mean over each tensor, or over the problem of each."""
    block_sums = ops.sum(log_learning_rate * layout.mask(), axis=-1)
    sums = ops.segment_sum(block_sums, layout.block_tensor, layout.num_tensors)
    counts = layout.tensor_elements
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


def _update_parameters(arrays, blocks, levels, config):
    """The parameter pass: everything that one parameter's step takes.

    Args:
        arrays: `[features, blocks, block_size]` state and gradient.
        blocks: `[features, blocks, 1]`, see `_block_inputs`.
        levels: Meta-parameters.
        config: The architecture.

    Returns:
        A dict of `[features, blocks, block_size]`: the new state, and `steps`,
        rows of the direction times the step length (not yet normalised), the
        same for the attended location, the decay; and of `[features, blocks, 1]`:
        `sums` over the real elements of a block, of the inputs of the tensor
        RNN and of the squared directions.
    """
    hidden = arrays["hidden_state"]
    rates = arrays["log_learning_rate"]
    gradient_decay = mean_square_decay = None
    if config.learns_gradient_decay:
        gradient_decay = decay_sigmoid(levels.readout("gradient_decay", hidden))
    if config.learns_mean_square_decay:
        mean_square_decay = decay_sigmoid(levels.readout("mean_square_decay", hidden))
    gradients = scale_gradients(
        arrays["gradient"],
        arrays["gradient_averages"],
        arrays["mean_squares"],
        blocks["started"],
        gradient_decay,
        mean_square_decay,
        config,
    )
    inputs = rnn_inputs(gradients, rates, blocks.get("mean_log_learning_rate"), config)
    new_hidden = gru_step(levels.kernels("parameter"), inputs, hidden, blocks["bias"])

    directions = [_direction("direction", "gradient", new_hidden, gradients, levels)]
    if config.attention:
        directions.append(
            _direction("attention", "attention", new_hidden, gradients, levels)
        )
    sums = [new_hidden]
    if config.extra_inputs:
        sums.append(inputs)
    if config.dynamic_output_scale:
        rate = rates + levels.readout("learning_rate", new_hidden)
        limited = ops.clip(rate, MIN_LOG_LEARNING_RATE, config.max_log_learning_rate)
        # The bounds are passed straight through by the meta-gradient.
        rate = rate + ops.stop_gradient(limited - rate)
        momentum = sigmoid(levels.scalar("learning_rate_momentum_logit"))
        new_rates = rate + momentum * (rates - rate)
        step_length = ops.exp(rate + levels.scalar("step_length_offset"))
        lengths = [step_length, ops.exp(rate)] if config.attention else [step_length]
        sums += [ops.square(direction) for direction in directions]
        steps = [direction * length for direction, length in zip(directions, lengths)]
    else:
        new_rates = rates
        step_length = 1.0
        steps = directions
    if "weight_decay" in blocks:
        steps.append(step_length * blocks["weight_decay"] * arrays["values"])

    new_state = {
        "hidden_state": new_hidden,
        "gradient_averages": gradients.averages,
        "mean_squares": gradients.mean_squares,
        "log_learning_rate": new_rates,
    }
    if "active" in blocks:
        keep = blocks["active"] > 0
        new_state = {
            name: ops.where(keep, value, arrays[name])
            for name, value in new_state.items()
        }
    return {
        **new_state,
        "steps": ops.concatenate(steps, axis=0) if len(steps) > 1 else steps[0],
        "sums": _sum_over_elements(ops.concatenate(sums, axis=0), blocks["elements"]),
    }


def _direction(name, shortcut, hidden, gradients, levels):
    """`h w + m s`, `[1, blocks, block_size]`, without the shortcut where off."""
    direction = levels.readout(name, hidden)
    if levels.has(f"{shortcut}_shortcut"):
        weights = levels.get(f"{shortcut}_shortcut", "parameter")
        direction = direction + linear(weights, gradients.scaled)
    return direction


def _sum_over_elements(x, elements):
    """`[features, blocks, 1]` sums over the real elements of each block."""
    positions = ops.arange(x.shape[-1], dtype="float32")
    return ops.sum(ops.where(positions < elements, x, 0.0), axis=-1, keepdims=True)


def _update_by_chunks(arrays, blocks, layout, levels, config, num_chunks):
    """`_update_parameters` in a loop over chunks, the state updated in place.

    Each array is read once and written once a turn, with a conditional between
    them: XLA does not fuse across it, so that it needs no copy of the arrays
    that the loop carries. It also skips chunks in which no tensor is active.
    """
    chunk = layout.blocks_per_chunk
    total = len(layout.block_tensor)
    # Arrays of size 0 (no learning rate) cannot be sliced everywhere.
    state_names = [
        name for name in State._fields if name in arrays and arrays[name].shape[0]
    ]
    output_names = (*state_names, "steps", "sums")
    num_directions = 1 + config.attention
    num_steps = num_directions + ("weight_decay" in blocks)
    num_sums = (
        config.level_sizes[0]
        + (config.inputs if config.extra_inputs else 0)
        + num_directions * config.dynamic_output_scale
    )

    def empty_outputs(rows):
        return [
            ops.zeros((num_steps, rows, layout.block_size), "float32"),
            ops.zeros((num_sums, rows, 1), "float32"),
        ]

    def body(turn, *carried):
        zero = ops.zeros_like(turn)
        start = ops.stack([zero, turn * chunk, zero])
        current = {**arrays, **dict(zip(state_names, carried, strict=False))}

        def take(value):
            if not value.shape[0]:
                return value[:, :chunk]
            return ops.slice(value, start, (value.shape[0], chunk, value.shape[2]))

        chunk_arrays = {name: take(value) for name, value in current.items()}
        chunk_blocks = {name: take(value) for name, value in blocks.items()}
        live = chunk_blocks.get("active", 1.0) * chunk_blocks["elements"]

        def update_chunk():
            outputs = _update_parameters(chunk_arrays, chunk_blocks, levels, config)
            return [outputs[name] for name in output_names]

        def skip_chunk():
            return [chunk_arrays[name] for name in state_names] + empty_outputs(chunk)

        results = ops.cond(ops.sum(live) > 0, update_chunk, skip_chunk)
        written = [
            ops.slice_update(value, start, result)
            for value, result in zip(carried, results, strict=True)
        ]
        return (turn + 1, *written)

    turns = layout.num_chunks if num_chunks is None else num_chunks
    turns = ops.cast(turns, "int32")
    carried = [arrays[name] for name in state_names] + empty_outputs(total)
    _, *carried = ops.while_loop(
        lambda turn, *carried: turn < turns,
        body,
        (ops.zeros((), "int32"), *carried),
        maximum_iterations=layout.num_chunks,
    )
    return {**arrays, **dict(zip(output_names, carried, strict=True))}


def _update_tensors(
    state, outputs, layout, levels, config, learning_rate, active
) -> Step:
    """The second pass: tensor and global RNN, and the steps at their length."""
    sums = ops.segment_sum(
        ops.transpose(outputs["sums"][:, :, 0]), layout.block_tensor, layout.num_tensors
    )
    elements = ops.maximum(ops.convert_to_tensor(layout.tensor_elements), 1.0)
    means = ops.transpose(sums / elements[:, None])
    num_directions = 1 + config.attention
    steps = outputs["steps"][:num_directions]
    if config.dynamic_output_scale:
        inverse_lengths = ops.rsqrt(means[-num_directions:] + DIRECTION_EPSILON)
        means = means[:-num_directions]
        per_block = ops.take(inverse_lengths, layout.block_tensor, axis=1)
        steps = steps * per_block[:, :, None]
    step = steps[0]
    if outputs["steps"].shape[0] > num_directions:
        step = step + outputs["steps"][num_directions]
    step = learning_rate * step
    attended_step = learning_rate * steps[1] if config.attention else None
    tensor_state, global_state = _update_upper_levels(
        means, state, layout, levels, config, active
    )
    started = ops.ones_like(state.started)
    if active is not None:
        keep = active > 0
        rows = ops.take(keep, layout.block_tensor, axis=0)[:, None]
        step = ops.where(rows, step, 0.0)
        if config.attention:
            attended_step = ops.where(rows, attended_step, 0.0)
        started = ops.where(keep, started, state.started)
    return Step(
        step,
        attended_step,
        State(
            hidden_state=outputs["hidden_state"],
            gradient_averages=outputs["gradient_averages"],
            mean_squares=outputs["mean_squares"],
            log_learning_rate=outputs["log_learning_rate"],
            tensor_state=tensor_state,
            global_state=global_state,
            started=started,
        ),
    )


def _update_upper_levels(means, state, layout, levels, config, active):
    """The new states of the tensors and of the problems.

    `means` are `[features, tensors]`, of the new hidden states and of the inputs.
    """
    if config.levels < 2:
        return state.tensor_state, state.global_state
    bias = levels.cell_bias("tensor", "tensor")
    if config.levels >= 3:
        global_state = ops.take(state.global_state, layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_tensor", "tensor", global_state)
    tensor_state = gru_step(levels.kernels("tensor"), means, state.tensor_state, bias)
    if active is not None:
        tensor_state = ops.where(active > 0, tensor_state, state.tensor_state)
    if config.levels < 3:
        return tensor_state, state.global_state

    weights = _global_weights(layout, config, active)
    weighted = ops.where(weights > 0, tensor_state * weights, 0.0)
    global_input = ops.transpose(_sum_over_problems(ops.transpose(weighted), layout))
    global_state = gru_step(
        levels.kernels("global"),
        global_input,
        state.global_state,
        levels.cell_bias("global", "global"),
    )
    if active is not None:
        any_active = _sum_over_problems(ops.cast(active > 0, "float32"), layout) > 0
        global_state = ops.where(any_active, global_state, state.global_state)
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
