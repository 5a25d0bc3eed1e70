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

from learned_optimizer.rule.config import MIN_LOG_LEARNING_RATE, Config
from learned_optimizer.rule.gru import feature_first
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
        log_size: `[1, tensors]`, log of the size of a tensor's first parameters;
            `[0, tensors]` without a nominal learning rate.
        steps_taken: `[1, tensors]`, steps of each tensor; as `log_size`.
    """

    hidden_state: Any
    gradient_averages: Any
    mean_squares: Any
    log_learning_rate: Any
    tensor_state: Any
    global_state: Any
    started: Any
    log_size: Any
    steps_taken: Any


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
        "log_size": (int(config.nominal is not None), layout.num_tensors),
        "steps_taken": (int(config.nominal is not None), layout.num_tensors),
    }


_START_LEVELS = {
    "hidden_state": "parameter",
    "tensor_state": "tensor",
    "global_state": "global",
}


def initial_field(
    name, layout: Layout, meta_parameters, config: Config, log_learning_rate, log_size
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
    if name == "log_size" and config.nominal:
        return ops.broadcast_to(ops.cast(log_size, "float32"), shape)
    if name not in _START_LEVELS or not shape[0]:
        return ops.zeros(shape, "float32")
    level = _START_LEVELS[name]
    start = Levels(meta_parameters, layout).get(f"{level}_start", level)
    start = feature_first(ops.convert_to_tensor(start)[..., 0, :], len(shape))
    if not config.learnable_start:
        # The released code draws them as constants: no gradient trains them.
        start = ops.stop_gradient(start)
    return ops.broadcast_to(start, shape)


def initial_state(
    layout: Layout, meta_parameters, config: Config, log_learning_rate, log_size=0.0
) -> State:
    """The state before the first step.

    Args:
        layout: The layout of the parameters.
        meta_parameters: Their dict, with or without a problem axis.
        config: The architecture.
        log_learning_rate: Natural logarithm of the initial learning rate: a
            number, or an array that broadcasts against `[1, blocks, block_size]`.
            It is clipped to [-33, `config.max_log_learning_rate`].
        log_size: Log of the size of each tensor's parameters, from
            `nominal.log_sizes`: a number, or `[1, tensors]`. Only a nominal
            learning rate needs it.
    """
    return State(
        *(
            initial_field(
                name, layout, meta_parameters, config, log_learning_rate, log_size
            )
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
    values = ops.convert_to_tensor(values)
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
    gradients = ops.convert_to_tensor(gradients)
    state = State(*(ops.convert_to_tensor(field) for field in state))
    levels = Levels(meta_parameters, layout)
    if layout.shards > 1 or (levels.per_problem and layout.blocks_per_chunk):
        raise ValueError(
            "`compute_step` needs a layout of one shard, and without chunks where "
            "meta-parameters have a problem axis. Received: "
            f"shards={layout.shards}, blocks_per_chunk={layout.blocks_per_chunk}"
        )
    tensors = TensorLevels(*(getattr(state, name) for name in TensorLevels._fields))
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
