"""What comes before and after the pass over parameters: tensors and problems.

Before it, each block is told what it needs of its tensor and problem
(`block_inputs`). After it, what a whole tensor must agree on is settled: the states of
its RNN and of the problem's (`update_upper_levels`), the length of its direction
(`normalize_steps`).

Throughout, `state` is `{field: array}` of tensors and problems, `layout` says where
each tensor lies, `levels` are the meta-parameters, and `active` is `[tensors]`, 0 where
one takes no part; None: all do.
"""

from keras import ops

from learned_optimizer.rule.gradients import log_decline
from learned_optimizer.rule.gru import gru_step, linear
from learned_optimizer.rule.layout import (
    Layout,
    concatenated,
    segment_sum,
    sum_blocks,
)
from learned_optimizer.rule.levels import Levels

# Keeps the length of a zero direction finite (released code).
DIRECTION_EPSILON = 1e-16


def sum_log_learning_rates(log_learning_rate, layout: Layout, rows=slice(None)):
    """`[tensors]` sums of `[1, blocks, block_size]` log learning rates.

    They are of all blocks, or of the shard that has these rows.
    """
    elements = ops.cast(layout.block_elements[rows], "float32")[:, None]
    positions = ops.arange(layout.block_size, dtype="float32")
    block_sums = ops.sum(
        ops.where(positions < elements, log_learning_rate[0], 0.0), axis=-1
    )
    return sum_blocks(block_sums, layout, rows)


def block_inputs(
    state, rate_sums, layout, levels, config, weight_decay, active, horizon=None
):
    """What the parameter pass needs of its tensor and problem. Equation 7.

    The bias of its cell is `b + A_T T + A_G G`; all is gathered for each block.
    `rate_sums` are from `sum_log_learning_rates`, None without that input;
    `weight_decay` is `[tensors]` or None, `horizon` a `Horizon` of tensors or None.
    Returns a dict of `[features, blocks, 1]`, see `update_parameters`.
    """
    bias = levels.cell_bias("parameter", "tensor")
    if config.levels >= 2:
        bias = bias + levels.affine(
            "tensor_to_parameter", "tensor", state["tensor_state"]
        )
    if config.levels >= 3:
        global_state = ops.take(state["global_state"], layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_parameter", "tensor", global_state)
    rows = (3 * config.level_sizes[0], layout.num_tensors)
    per_tensor = {
        "bias": ops.broadcast_to(bias, rows),
        "started": state["started"][None],
    }
    if config.relative_learning_rate:
        means = _mean_log_learning_rate(rate_sums, layout, config, active)
        per_tensor["mean_log_learning_rate"] = means[None]
    if config.nominal:
        per_tensor["log_nominal_rate"] = config.nominal.log_rate(
            state["log_size"], state["steps_taken"], horizon, layout
        )
        if config.gradient_decline:
            per_tensor["log_nominal_rate"] += config.nominal.decline * log_decline(
                state
            )
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
    return segment_sum(per_tensor, layout.tensor_problem, layout.num_problems)


def update_tensors(
    layout, config, state, steps, sums, meta_parameters, active, learning_rate, horizon
):
    """The third stage of a step: tensors and problems, and the steps at their length.

    `steps` and `sums` are lists of what `update_parameters` returned for each shard;
    that of `steps` is emptied. `horizon` is None where the RNN of tensors does not see
    one. Returns the new state, and the step and the attended step (None without
    attention), `[blocks, block_size]` of each shard.
    """
    state = {name: ops.convert_to_tensor(value) for name, value in state.items()}
    sums = sum_blocks(ops.transpose(concatenated(sums, axis=1)), layout)
    elements = ops.maximum(ops.convert_to_tensor(layout.tensor_elements), 1.0)
    means = ops.transpose(sums / elements[:, None])
    lengths = None
    if config.dynamic_output_scale:
        # The inverse root mean square of each direction.
        num_directions = 1 + config.attention
        lengths = ops.rsqrt(means[-num_directions:] + DIRECTION_EPSILON)
        means = means[:-num_directions]
    counted = {"started": ops.ones_like(state["started"])}
    if config.nominal:
        counted["steps_taken"] = state["steps_taken"] + 1.0
    if active is not None:
        counted = {
            name: ops.where(active > 0, value, state[name])
            for name, value in counted.items()
        }
    levels = Levels(meta_parameters, layout)
    upper = update_upper_levels(means, state, layout, levels, config, active, horizon)
    block_tensor = layout.block_tensor
    normalized = [
        normalize_steps(
            steps.pop(0), lengths, block_tensor[rows], config, learning_rate, active
        )
        for rows in layout.shard_blocks
    ]
    step, attended_step = map(list, zip(*normalized, strict=True))
    return upper | counted, (step, attended_step if config.attention else None)


def normalize_steps(steps, lengths, block_tensor, config, learning_rate, active):
    """Steps at their length, of all blocks or of one shard. Equation 11.

    `d / sqrt(mean of d^2 + 1e-16)`, times the learning rate; `lengths`, `[directions,
    tensors]`, are the inverse roots. `steps` are `{name: [1, blocks, block_size]}` of
    the parameter pass, `block_tensor`, `[blocks]`, says the tensor of each. Inactive
    tensors take no step. Returns the step and the attended step (None without
    attention), each `[blocks, block_size]`.
    """
    names = ["step", "attended_step"][: 1 + config.attention]
    directions = [steps[name][0] for name in names]
    if config.dynamic_output_scale:
        directions = [
            direction * ops.take(lengths[i], block_tensor, axis=0)[:, None]
            for i, direction in enumerate(directions)
        ]
    if "decay" in steps:
        directions[0] = directions[0] + steps["decay"][0]
    found = [learning_rate * direction for direction in directions]
    if active is not None:
        keep = ops.take(active, block_tensor, axis=0)[:, None] > 0
        found = [ops.where(keep, value, 0.0) for value in found]
    return found[0], found[1] if config.attention else None


def update_upper_levels(means, state, layout, levels, config, active, horizon):
    """The RNNs of tensors and problems. Equations 8 and 9.

    `T <- cell(mean of [h, x], T, b + A G)`, `G <- cell(mean of T, G, b)`; with
    `horizon_input` the first bias has `f w` beside. `means`, `[features, tensors]`, are
    of the new hidden states and of the inputs; `f` is the fraction that is left of a
    `Horizon`, 1 without one. Returns a dict of the new hidden states.
    """
    if config.levels < 2:
        return {}
    bias = levels.cell_bias("tensor", "tensor")
    if config.levels >= 3:
        global_state = ops.take(state["global_state"], layout.tensor_problem, axis=1)
        bias = bias + levels.affine("global_to_tensor", "tensor", global_state)
    if config.horizon_input:
        fraction_left = ops.ones((layout.num_tensors,), "float32")
        if horizon is not None:
            fraction_left = horizon.of_tensors(layout).fraction_left()
        weights = levels.get("horizon_to_tensor", "tensor")
        bias = bias + linear(weights, fraction_left[None])
    tensor_state = gru_step(
        levels.kernels("tensor"), means, state["tensor_state"], bias
    )
    if active is not None:
        tensor_state = ops.where(active > 0, tensor_state, state["tensor_state"])
    if config.levels < 3:
        return {"tensor_state": tensor_state}

    weights = _global_weights(layout, config, active)
    weighted = ops.where(weights > 0, tensor_state * weights, 0.0)
    global_input = ops.transpose(_sum_over_problems(ops.transpose(weighted), layout))
    global_state = gru_step(
        levels.kernels("global"),
        global_input,
        state["global_state"],
        levels.cell_bias("global", "global"),
    )
    if active is not None:
        any_active = _sum_over_problems(ops.cast(active > 0, "float32"), layout) > 0
        global_state = ops.where(any_active, global_state, state["global_state"])
    return {"tensor_state": tensor_state, "global_state": global_state}


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
