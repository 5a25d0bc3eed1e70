"""The update rule in plain NumPy, float64, tensor by tensor, features last.

It shares no code with `learned_optimizer.rule`, only the architecture (`Config`) and
the names of meta-parameters. The numbers are those of the equations in
`docs/mathematics.md`.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def mean(x):
    """Over the first axis, 0 where there is nothing."""
    return np.sum(x, axis=0) / max(1, len(x))


def float64(meta_parameters):
    return {name: np.float64(array) for name, array in meta_parameters.items()}


def log_sizes(values, nominal=None):
    """Log root mean squares of a model's arrays, those of zeros as the others'.

    With the bound, the depth and the width of a `NominalRate`, where it has them.
    """
    sizes = [np.sqrt(mean(np.float64(np.ravel(value)) ** 2)) for value in values]
    known = [np.log(size) for size in sizes if size > 0]
    usual = np.mean(known) if known else np.log(0.1)
    logs = [np.log(size) if size > 0 else usual for size in sizes]
    if nominal and nominal.largest is not None and known:
        everything = np.concatenate([np.ravel(np.float64(value)) for value in values])
        bound = nominal.largest * np.sqrt(np.mean(everything**2))
        logs = [min(log, np.log(bound)) for log in logs]
    if nominal and nominal.shallow_tensors is not None:
        tensors = sum(value.size > 0 for value in values)
        depth = max(1, tensors / nominal.shallow_tensors)
        logs = [log - np.log(depth) / 2 for log in logs]
    if nominal and nominal.narrow_width is not None:
        wider = [max(1, width(value.shape) / nominal.narrow_width) for value in values]
        logs = [log - np.log(n) / 2 for log, n in zip(logs, wider, strict=True)]
    return logs


def width(shape):
    """How wide the widest matrix of this shape is: a square one has its sides."""
    sizes = [0.0]
    for axis in range(len(shape) + 1) if np.prod(shape) else ():
        ones = np.ones((int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))
        equal, independent = np.linalg.norm(ones, 2), np.sqrt(ones.shape).sum()
        sizes.append((2 * equal / independent) ** 2)
    return max(sizes)


def initial_tensor(w, config, count, log_rate, log_size):
    """The state of a tensor of `count` elements before its first step."""
    log_rate = np.clip(log_rate, -33.0, config.max_log_learning_rate)
    return {
        "hidden_state": np.repeat(w["parameter_start"], count, axis=0),
        "gradient_averages": np.zeros((count, config.gradient_timescales)),
        "mean_squares": np.zeros((count, config.gradient_timescales)),
        "log_learning_rate": np.full(count, np.ravel(log_rate), np.float64),
        "tensor_state": w["tensor_start"][0] if config.levels >= 2 else np.zeros(0),
        "log_size": log_size,
        "steps_taken": 0,
        "largest_gradient_size": 0.0,
    }


def initial_global_state(w, config):
    return w["global_start"][0] if config.levels >= 3 else np.zeros(0)


def step(w, config, tensors, global_state, gradients, total_steps=0):
    """One step of one problem.

    Args:
        w: Meta-parameters, from `float64`.
        config: The architecture.
        tensors: Those that take part, dicts as of `initial_tensor`; they are moved on,
            and get `step` and `attended_step` (what is taken off, before the factor
            `learning_rate`), `step_length`, and with a nominal rate `deviation`, how
            far the log rates of this step are from it.
        global_state: The problem's.
        gradients: `[elements]` a tensor.
        total_steps: Of the whole training, counted from the first step of the first
            tensor; 0 where that is not known.

    Returns:
        The new global state.
    """
    steps = tensors[0]["steps_taken"]
    left = max(0.0, 1 - steps / total_steps) if total_steps else 1.0
    all_rates = np.concatenate([tensor["log_learning_rate"] for tensor in tensors])
    for tensor, g in zip(tensors, gradients, strict=True):
        rates = tensor["log_learning_rate"]
        of_problem = config.learning_rate_mean == "problem"
        mean_rate = mean(all_rates if of_problem else rates)
        averages, squares, m = scaled_gradients(w, config, tensor, np.float64(g))
        nominal = None
        if config.nominal:  # Equation 16.
            rate = config.nominal
            fallen = rate.power * np.log(1 + tensor["steps_taken"] / rate.decay_steps)
            if total_steps:  # Equation 19.
                fall = min(1.0, left / (1 - rate.fall_start)) ** rate.fall_power
                fall = rate.fall_end + (1 - rate.fall_end) * fall
                fallen = rate.horizon_power * np.log(total_steps / 1000)
                fallen += rate.horizon_decay * np.log(1 + steps / rate.decay_steps)
                fallen -= np.log(rate.horizon_peak) + np.log(fall)
                if rate.horizon_warmup:
                    whole = max(1.0, rate.horizon_warmup * total_steps)
                    fallen -= np.log(min(1.0, (steps + 1) / whole))
                if rate.horizon_shallow_tensors:
                    depth = sum(t["hidden_state"].size > 0 for t in tensors)
                    before = max(1, depth / (rate.shallow_tensors or np.inf))
                    now = max(1, depth / rate.horizon_shallow_tensors)
                    fallen += np.log(now / before) / 2
            nominal = np.log(rate.ratio) + tensor["log_size"] - fallen
        if config.gradient_decline:
            size = mean(np.float64(g) ** 2)
            if tensor["steps_taken"]:
                size = 0.05 * size + 0.95 * tensor["gradient_size"]
            tensor["gradient_size"] = size
            largest = max(size, tensor["largest_gradient_size"])
            tensor["largest_gradient_size"] = largest
            if largest > 0:
                nominal = nominal + rate.decline * np.log(np.sqrt(size / largest))
        x = inputs(config, m, squares, rates, mean_rate, nominal)
        bias = np.zeros(3 * config.level_sizes[0])  # Equation 7.
        if config.levels >= 2:
            bias = bias + affine(w, "tensor_to_parameter", tensor["tensor_state"])
        if config.levels >= 3:
            bias = bias + affine(w, "global_to_parameter", global_state)
        h = cell(w, "parameter", x, tensor["hidden_state"], bias)
        tensor["step"] = direction(w, config, "direction", "gradient_shortcut", h, m)
        tensor["attended_step"], tensor["step_length"] = tensor["step"], 1.0
        if config.attention:
            names = "attention", "attention_shortcut"
            tensor["attended_step"] = direction(w, config, *names, h, m)
        if config.dynamic_output_scale:
            low, high = -33.0, config.max_log_learning_rate
            eta = np.clip(rates + readout(w, "learning_rate", h), low, high)  # 12.
            if config.nominal:  # Equation 17.
                low, high = config.nominal.lowest, config.nominal.highest
                eta = np.clip(eta, nominal + low, nominal + high)
                tensor["deviation"] = eta - nominal
            gamma = sigmoid(w["learning_rate_momentum_logit"])
            rates = gamma * rates + (1 - gamma) * eta  # Equation 13.
            if config.nominal:  # Equation 18.
                rates = rates + (nominal - rates) / config.nominal.memory
            tensor["step_length"] = np.exp(eta + w["step_length_offset"])
            tensor["step"] = tensor["step"] * tensor["step_length"]  # Equation 14.
            # Equation 15.
            tensor["attended_step"] = tensor["attended_step"] * np.exp(eta)
        if config.levels >= 2:  # Equation 8.
            seen = np.append(h, x, axis=1) if config.extra_inputs else h
            bias = np.zeros(3 * config.level_sizes[1])
            if config.levels >= 3:
                bias = affine(w, "global_to_tensor", global_state)
            if config.horizon_input:
                bias = bias + left * w["horizon_to_tensor"][0]
            old = tensor["tensor_state"]
            tensor["tensor_state"] = cell(w, "tensor", mean(seen), old, bias)
        tensor.update(
            hidden_state=h,
            gradient_averages=averages,
            mean_squares=squares,
            log_learning_rate=rates,
            steps_taken=tensor["steps_taken"] + 1,
        )
    if config.levels < 3:
        return global_state
    states = [tensor["tensor_state"] for tensor in tensors]  # Equation 9.
    takes_all = config.global_rnn_input == "all_tensors"
    seen = np.mean(states, axis=0) if takes_all else states[-1]
    return cell(w, "global", seen, global_state)


def scaled_gradients(w, config, tensor, g):
    """Equations 1 to 4: the averages, their mean squares, and the scaled gradients."""
    h, has_started = tensor["hidden_state"], tensor["steps_taken"] > 0
    timescales = 0.5 ** np.arange(config.gradient_timescales)

    def decay(name, fixed, learned):
        beta = sigmoid(readout(w, name, h)) if learned else np.full(len(h), fixed)
        return beta[:, None]

    averages = g[:, None]
    if config.gradient_timescales > 1:
        learned = config.learnable_decay and config.learnable_input_decay
        beta = has_started * decay("gradient_decay", 0.89, learned) ** timescales
        averages = (1 - beta) * averages + beta * tensor["gradient_averages"]
    beta = decay("mean_square_decay", 0.93, config.learnable_decay)
    if config.multiple_scale_decays:
        beta = beta**timescales
    beta = has_started * beta
    squares = (1 - beta) * (averages**2 + 1e-12) + beta * tensor["mean_squares"]
    return averages, squares, np.arcsinh(averages / np.sqrt(squares + 1e-16))


def inputs(config, m, squares, rates, mean_rate, nominal):
    """Equation 5."""
    x = [np.abs(m) if config.absolute_inputs else m]
    if config.gradient_products:
        x.append(m[:, :-1] * m[:, 1:])
    if config.log_mean_squares:
        logs = np.log(squares + 1e-16)
        x.append(logs - logs.mean(axis=1, keepdims=True))
    if config.relative_learning_rate:
        x.append((rates - mean_rate)[:, None])
    if config.extreme_indicator:
        low = np.maximum(np.log(1e-6) - rates, 0)
        x.append((np.maximum(rates, 0) - low)[:, None])
    if config.learning_rate_shortcut:
        x.append((rates - np.log(1e-3))[:, None])
    if config.nominal:
        x.append((rates - nominal)[:, None])
    return np.concatenate(x, axis=1)


def cell(w, name, x, h, bias=0.0):
    """Equation 6."""
    bias = bias + np.append(w[f"{name}_gates_bias"], w[f"{name}_candidate_bias"])
    size = h.shape[-1]
    gates = np.append(x, h, axis=-1) @ w[f"{name}_gates_kernel"]
    gates = sigmoid(gates + bias[: 2 * size])
    reset, keep = gates[..., :size], gates[..., size:]
    candidate = np.append(x, reset * h, axis=-1) @ w[f"{name}_candidate_kernel"]
    candidate = np.tanh(candidate + bias[2 * size :])
    return keep * h + (1 - keep) * candidate


def direction(w, config, name, shortcut, h, m):
    """Equations 10 and 11."""
    if config.odd_direction:
        d = np.sum(m * np.tanh(h @ w[f"{name}_coefficients"]), axis=1)
    else:
        d = readout(w, name, h)
    if config.gradient_shortcut:
        d = d + (m @ w[shortcut])[:, 0]
    if config.dynamic_output_scale:
        d = d / np.sqrt(mean(d**2) + 1e-16)
    return d


def affine(w, name, x):
    return x @ w[f"{name}_kernel"] + w[f"{name}_bias"]


def readout(w, name, h):
    return (h @ w[f"{name}_weights"] + w.get(f"{name}_bias", 0.0))[:, 0]
