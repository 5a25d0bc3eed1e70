"""The first pass of an update: everything that one parameter's step takes.

    gradient → averages, mean squares → RNN inputs → parameter RNN
        → direction, log learning rate → step (its direction not yet normalised)

It is bound by arithmetic, so it runs in chunks of blocks that stay in a core's
cache, and a layout of several shards lets several cores work on shards of their
own. What a tensor or problem must tell its parameters was gathered a block
beforehand; what they tell it is summed over each block.

Throughout, `levels` are the meta-parameters, see `levels.py`, and `hidden` is the
hidden state of the parameters' RNN, `[10, blocks, block_size]`.
"""

from keras import ops

from learned_optimizer.rule.config import MIN_LOG_LEARNING_RATE
from learned_optimizer.rule.features import decay_sigmoid, rnn_inputs, scale_gradients
from learned_optimizer.rule.gru import feature_first, gru_step, linear, sigmoid
from learned_optimizer.rule.half_precision import (
    as_floats,
    as_integers,
    rounded,
    widened,
)
from learned_optimizer.rule.levels import Levels
from learned_optimizer.rule.state import PARAMETER_FIELDS

# In elements. Larger ones are the pieces of an accelerator.
LARGEST_CACHED_CHUNK = 65_536
STEPS = ("step", "attended_step", "decay")
DECAYS = ("gradient_decay", "mean_square_decay")
# Floats that are added to one another at once.
LANES = 32


def update_parameters(
    layout, config, state, gradient, values, blocks, meta_parameters, num_chunks
):
    """The second stage of a step: the pass over one shard.

    `state` is `{field: [features, blocks, block_size]}`, the fields of parameters that
    the architecture has; gradient and values, None without weight decay, are `[blocks,
    block_size]`. `blocks` are `{name: [features, blocks, 1]}`: `bias` of the parameter
    RNN, `started`, `elements`, and where they are needed `mean_log_learning_rate`,
    `log_nominal_rate`, `weight_decay`, `active` and `rounding`. The first `num_chunks`
    are run, None: all; in the others gradients and values stand for the steps.

    Returns:
        The new state; and the steps, `{name: [1, blocks, block_size]}`, see
        `unnormalized_steps`, with `[features, blocks]`, sums over the real elements of
        each block of what the tensor RNN sees and of the squared directions.
    """
    levels = Levels(meta_parameters, layout)
    arrays = as_integers({n: ops.convert_to_tensor(x) for n, x in state.items()})
    arrays["gradient"] = gradient[None]
    if values is not None:
        arrays["values"] = values[None]
    if layout.blocks_per_chunk is None:
        outputs = _pass_at_once(arrays, blocks, levels, config)
        outputs = _keep_inactive(outputs, arrays, blocks)
    else:
        outputs = _pass_by_chunks(
            arrays, blocks, levels, config, layout.blocks_per_chunk, num_chunks
        )
    new_state = as_floats({name: outputs[name] for name in state})
    steps = {name: outputs[name] for name in STEPS if name in outputs}
    return new_state, (steps, outputs["sums"][:, :, 0])


def _pass_at_once(arrays, blocks, levels, config, fenced=False):
    """The pass without a loop: a dict of the new state, the steps and `sums`."""
    arrays = {name: widened(value) for name, value in arrays.items()}
    hidden = arrays["hidden_state"]
    rates = arrays.get("log_learning_rate")
    nominal = blocks.get("log_nominal_rate")
    decays, gates_from_hidden = read_decays(hidden, levels, config)
    gradients = scale_gradients(
        arrays["gradient"],
        arrays["gradient_averages"],
        arrays["mean_squares"],
        blocks["started"],
        decays.get("gradient_decay"),
        decays.get("mean_square_decay"),
        config,
    )
    inputs = rnn_inputs(
        gradients, rates, blocks.get("mean_log_learning_rate"), config, nominal
    )
    kernels = levels.kernels("parameter")
    fence = _fence(hidden, gradients.scaled, blocks) if fenced else None
    hidden = gru_step(kernels, inputs, hidden, blocks["bias"], gates_from_hidden, fence)
    directions = read_directions(hidden, gradients.scaled, levels, config)
    outputs = {
        "hidden_state": hidden,
        "gradient_averages": gradients.averages,
        "mean_squares": gradients.mean_squares,
    }
    sums = [hidden, inputs] if config.extra_inputs else [hidden]
    rate = None
    if config.dynamic_output_scale:
        rate, outputs["log_learning_rate"] = read_rates(
            hidden, rates, nominal, levels, config
        )
        sums += [ops.square(direction) for direction in directions]
    decay = None
    if "weight_decay" in blocks:
        decay = blocks["weight_decay"] * arrays["values"]
    outputs = rounded(outputs, blocks.get("rounding"))
    outputs |= unnormalized_steps(directions, rate, decay, levels)
    return outputs | {"sums": _sum_over_elements(sums, blocks["elements"])}


def _fence(hidden, scaled, blocks):
    """Calls the function that computes a cell's gates within a conditional.

    What goes into a matrix product XLA would write to an array of two axes by a loop
    that is not vectorised. Across a conditional it does not fuse.
    """
    # It always is, which XLA does not know.
    is_true = ops.max(blocks["started"]) >= 0
    size, *shape = hidden.shape

    def never():
        # And so XLA computes scaled gradients once, not in each loop that reads them.
        others = [ops.broadcast_to(scaled[:1], (n * size, *shape)) for n in (2, 3)]
        return hidden, *others

    return lambda gate: ops.cond(is_true, gate, never)


def read_decays(hidden, levels, config):
    """Decays of the averages, read from the old hidden state. Equation 1.

    `beta = sigmoid(h w + b)`, where it is learned.

    Returns:
        A dict of `gradient_decay` and `mean_square_decay`, `[1, blocks, block_size]`,
        without those that are fixed; and what the hidden state adds to the gates of the
        cell, since one matrix product serves all.
    """
    size = config.level_sizes[0]
    names = [name for name in DECAYS if levels.has(f"{name}_weights")]
    weights = [levels.kernels("parameter").gates[..., config.inputs :, :]]
    weights += [levels.get(f"{name}_weights", "parameter") for name in names]
    products = linear(ops.concatenate(weights, axis=-1), hidden)
    decays = {}
    if names:
        bias = [levels.get(f"{name}_bias", "parameter") for name in names]
        bias = feature_first(ops.concatenate(bias, axis=-1), 3)
        values = decay_sigmoid(products[2 * size :] + bias)
        decays = {name: values[i : i + 1] for i, name in enumerate(names)}
    return decays, products[: 2 * size]


def read_directions(hidden, scaled, levels, config):
    """The direction and, with attention, that of the attended step. Equation 10.

    `d = h w + m s`, without the second term where the architecture has no shortcut.
    With `odd_direction` the first is `m tanh(h w)`, a readout for each timescale. The
    hidden state is the new one, the scaled gradients `s` are `[S, blocks, block_size]`,
    and the result is a list of `[1, blocks, block_size]`.
    """
    names = [("direction", "gradient_shortcut")]
    if config.attention:
        names.append(("attention", "attention_shortcut"))
    directions = []
    for name, shortcut in names:
        if config.odd_direction:
            weights = levels.get(f"{name}_coefficients", "parameter")
            coefficients = ops.tanh(linear(weights, hidden))
            direction = ops.sum(coefficients * scaled, axis=0, keepdims=True)
        else:
            direction = levels.readout(name, hidden)
        if levels.has(shortcut):
            weights = levels.get(shortcut, "parameter")
            direction = direction + linear(weights, scaled)
        directions.append(direction)
    return directions


def read_rates(hidden, rates, nominal, levels, config):
    """The log learning rate of a step, its running average. Equations 12, 13, 17, 18.

    `eta = clip(average + h w + b)`, `average <- gamma average + (1 - gamma) eta`; with
    a nominal rate `nu`, `eta` stays near it, and `average <- average + (nu - average) /
    memory`. The hidden state is the new one, `rates` are the averages so far, `nominal`
    the logs of the nominal rates, `[1, blocks, 1]` or None. Returns `eta` and the new
    averages, `[1, blocks, block_size]`.
    """
    rate = rates + levels.readout("learning_rate", hidden)
    limited = ops.clip(rate, MIN_LOG_LEARNING_RATE, config.max_log_learning_rate)
    if config.nominal:
        lowest, highest = config.nominal.lowest, config.nominal.highest
        limited = ops.clip(limited, nominal + lowest, nominal + highest)
    # The bounds are passed straight through by the meta-gradient.
    rate = rate + ops.stop_gradient(limited - rate)
    momentum = sigmoid(levels.scalar("learning_rate_momentum_logit"))
    new_rates = rate + momentum * (rates - rate)
    if config.nominal:
        new_rates = new_rates + (nominal - new_rates) / config.nominal.memory
    return rate, new_rates


def unnormalized_steps(directions, rate, decay, levels):
    """What the step takes off, its direction not yet normalized. Equations 14 and 15.

    `exp(eta + c) d`, the same for the attended location, `exp(eta) a`, and the decay,
    `exp(eta + c) delta theta`. Without a rate `eta` the steps have length 1; the decay
    that is given is `delta theta` or None. Returns a dict of `step`, `attended_step`
    and `decay`, `[1, blocks, block_size]`, without those that there are not.
    """
    lengths = [1.0, 1.0]
    if rate is not None:
        length = ops.exp(rate + levels.scalar("step_length_offset"))
        lengths = [length, ops.exp(rate)] if directions[1:] else [length]
    steps = {
        name: direction * length
        for name, direction, length in zip(STEPS, directions, lengths, strict=False)
    }
    if decay is not None:
        steps["decay"] = lengths[0] * decay
    return steps


def _sum_over_elements(xs, elements):
    """`[features, blocks, 1]` sums over the real elements of each block.

    The features of a list of `[..., blocks, block_size]` follow one another;
    `elements`, `[1, blocks, 1]`, says how many of each block are real.
    """
    width = xs[0].shape[-1]
    is_real = ops.arange(width, dtype="float32") < elements
    xs = [ops.where(is_real, x, 0.0) for x in xs]
    # By lanes first: XLA has no vectors for sums along the last axis.
    if width > 2 * LANES and width % LANES == 0:
        xs = [sum(x[..., i : i + LANES] for i in range(0, width, LANES)) for x in xs]
    return ops.sum(ops.concatenate(xs, axis=0), axis=-1, keepdims=True)


def _keep_inactive(outputs, arrays, blocks):
    """The outputs with the state of inactive tensors as it was, bit for bit."""
    if "active" not in blocks:
        return outputs
    keep = blocks["active"] > 0
    return {
        name: ops.where(keep, value, arrays[name]) if name in arrays else value
        for name, value in outputs.items()
    }


def _pass_by_chunks(arrays, blocks, levels, config, chunk, num_chunks):
    """The pass in a loop over chunks of blocks, the state updated in place.

    Each array is read once and written once a turn, with a conditional between
    them: XLA does not fuse across it, so that it needs no copy of the arrays
    that the loop carries. It also skips chunks in which no tensor is active. Steps
    are written over the gradients, decays over the values.
    """
    total, block_size = arrays["gradient"].shape[1:]
    fields = [name for name in PARAMETER_FIELDS if name in arrays]
    # What is read, and what is written over it.
    written = {name: name for name in fields} | {"gradient": "step"}
    if "values" in arrays:
        written["values"] = "decay"
    output_names = (*written.values(), *["attended_step"] * config.attention, "sums")
    # An accelerator would wait for each conditional.
    fits_a_cache = chunk * block_size <= LARGEST_CACHED_CHUNK
    num_directions = 1 + config.attention
    num_sums = (
        config.level_sizes[0]
        + (config.inputs if config.extra_inputs else 0)
        + num_directions * config.dynamic_output_scale
    )

    def empty_outputs(rows):
        attended = [ops.zeros((1, rows, block_size), "float32")] * config.attention
        return [*attended, ops.zeros((num_sums, rows, 1), "float32")]

    def body(turn, *carried):
        zero = ops.zeros_like(turn)
        # The last chunk ends with the last block, and overlaps what is done already.
        first = ops.minimum(turn * chunk, total - chunk)
        start = ops.stack([zero, first, zero])
        current = {**arrays, **dict(zip(written, carried, strict=False))}

        def take(value):
            return ops.slice(value, start, (value.shape[0], chunk, value.shape[2]))

        chunk_arrays = {name: take(value) for name, value in current.items()}
        chunk_blocks = {name: take(value) for name, value in blocks.items()}
        live = chunk_blocks.get("active", 1.0) * chunk_blocks["elements"]
        if total % chunk:
            is_new = first + ops.arange(chunk, dtype="int32") >= turn * chunk

        def update_chunk():
            outputs = _pass_at_once(
                chunk_arrays, chunk_blocks, levels, config, fenced=fits_a_cache
            )
            return [outputs[name] for name in output_names]

        def skip_chunk():
            return [chunk_arrays[name] for name in written] + empty_outputs(chunk)

        results = ops.cond(ops.sum(live) > 0, update_chunk, skip_chunk)
        results = dict(zip(output_names, results, strict=True))
        # Here rather than in the conditional it costs no pass of its own.
        results = _keep_inactive(results, chunk_arrays, chunk_blocks)
        if total % chunk:
            old = [take(value) for value in carried]
            results = {
                name: ops.where(is_new[None, :, None], value, before)
                for (name, value), before in zip(results.items(), old, strict=True)
            }
        carried = [
            ops.slice_update(value, start, results[name])
            for value, name in zip(carried, output_names, strict=True)
        ]
        return (turn + 1, *carried)

    chunks = -(-total // chunk)
    turns = ops.cast(chunks if num_chunks is None else num_chunks, "int32")
    carried = [arrays[name] for name in written] + empty_outputs(total)
    _, *carried = ops.while_loop(
        lambda turn, *carried: turn < turns,
        body,
        (ops.zeros((), "int32"), *carried),
        maximum_iterations=chunks,
    )
    return {**arrays, **dict(zip(output_names, carried, strict=True))}
