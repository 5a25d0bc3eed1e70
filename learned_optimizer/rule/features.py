"""From gradients to the inputs of the parameter RNN.

Momentum at several timescales, dynamic input scaling, and the inputs that the
RNN sees. All arrays are `[features, blocks, block_size]`.
"""

from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.rule.config import (
    FIXED_GRADIENT_DECAY,
    FIXED_MEAN_SQUARE_DECAY,
    Config,
)

# Keeps the mean square of a zero gradient above 0: a tensor that has started
# never looks as if it had not (released code).
MEAN_SQUARE_EPSILON = 1e-12
SCALE_EPSILON = 1e-16
LOG_REFERENCE_RATE = -6.907755278982137  # log 1e-3
LOG_LOW_RATE = -13.815510557964274  # log 1e-6


class ScaledGradients(NamedTuple):
    """Gradients averaged and scaled, S timescales each.

    Attributes:
        averages: The new gradient averages.
        mean_squares: The new mean squares of these averages.
        scaled: asinh of the averages over their root mean square.
    """

    averages: Any
    mean_squares: Any
    scaled: Any


def decay_sigmoid(x):
    """The logistic function, exact also where it is tiny.

    Roots of a decay are taken, so its relative error matters, and its zero
    would have no derivative: below -80 it stays at 1e-35.
    """
    return 1.0 / (1.0 + ops.exp(-ops.maximum(x, -80.0)))


def decays_at_timescales(decay, timescales: int):
    """Yields `decay^(2^-k)` for k = 0..timescales-1, one after the other."""
    for k in range(timescales):
        if k:
            decay = ops.sqrt(decay)
        yield decay


def average_gradients(gradient, averages, started, decay, config):
    """Momentum at several timescales. Equation 2.

    `average_k <- (1 - beta^(2^-k)) g + beta^(2^-k) average_k`; with one timescale the
    gradient itself. `averages`, those so far, have S features, `gradient` and `decay`,
    the learned `beta`, have one; without a decay it is the fixed one.
    """
    if config.gradient_timescales == 1:
        return gradient
    if decay is None:
        decay = ops.full((1, 1, 1), FIXED_GRADIENT_DECAY, "float32")
    # Not from one array of all decays: XLA would write what follows over it, and LLVM
    # does not vectorise a loop that writes where it reads (a third of a step). And each
    # root right before its use: all of them first take a tenth longer.
    decays = decays_at_timescales(decay, config.gradient_timescales)
    averaged = [
        gradient + started * beta * (averages[k : k + 1] - gradient)
        for k, beta in enumerate(decays)
    ]
    return ops.concatenate(averaged, axis=0)


def scale_gradients(
    gradient, averages, mean_squares, started, gradient_decay, mean_square_decay, config
) -> ScaledGradients:
    """Dynamic input scaling of averaged gradients. Equations 3 and 4.

    `lambda <- (1 - beta) (average^2 + 1e-12) + beta lambda`,
    `m = asinh(average / sqrt(lambda + 1e-16))`.

    `averages` and `mean_squares`, those so far, have S features, the gradient and the
    learned decays have one; a decay that is None is the fixed one.
    `started`, `[1, blocks, 1]`, is 0 at a tensor's first step and 1 after it: with 0
    both decays count as 0, and there is no bias correction.
    """
    new_averages = average_gradients(
        gradient, averages, started, gradient_decay, config
    )
    if mean_square_decay is None:
        mean_square_decay = ops.full((1, 1, 1), FIXED_MEAN_SQUARE_DECAY, "float32")
    if config.multiple_scale_decays:
        decays = decays_at_timescales(mean_square_decay, config.gradient_timescales)
        mean_square_decay = ops.concatenate(list(decays), axis=0)
    squares = ops.square(new_averages) + MEAN_SQUARE_EPSILON
    new_mean_squares = squares + started * mean_square_decay * (mean_squares - squares)
    scaled = asinh(new_averages * ops.rsqrt(new_mean_squares + SCALE_EPSILON))
    return ScaledGradients(new_averages, new_mean_squares, scaled)


def asinh(x):
    """The inverse hyperbolic sine, without cancellation for negative x.

    Its derivative at 0 is 1, which `sign(x)` would turn into 0.
    """
    # Of x's dtype: two plain numbers would have that of `keras.config.floatx()`.
    one = ops.ones_like(x)
    sign = ops.where(x < 0, -one, one)
    return sign * ops.log(sign * x + ops.sqrt(1.0 + x * x))


def rnn_inputs(
    gradients: ScaledGradients,
    log_learning_rate,
    mean_log_learning_rate,
    config: Config,
    log_nominal_rate=None,
):
    """The inputs of the parameter RNN. Equation 5.

    In the released order: scaled gradients, their products, log mean squares,
    relative log learning rate, extreme indicator, learning-rate shortcut; then how
    far the log learning rate is from the nominal one, which is ours.

    `log_learning_rate` has the averages of the log learning rates, one feature.
    `mean_log_learning_rate`, their mean over the problem or the tensor, and
    `log_nominal_rate` are `[1, blocks, 1]`. The result has `config.inputs` features.
    """
    scaled = gradients.scaled
    inputs = [ops.abs(scaled) if config.absolute_inputs else scaled]
    if config.gradient_products and config.gradient_timescales > 1:
        inputs.append(scaled[:-1] * scaled[1:])
    if config.log_mean_squares:
        log_squares = ops.log(gradients.mean_squares + SCALE_EPSILON)
        inputs.append(log_squares - ops.mean(log_squares, axis=0, keepdims=True))
    if config.relative_learning_rate:
        inputs.append(log_learning_rate - mean_log_learning_rate)
    if config.extreme_indicator:
        inputs.append(
            ops.relu(log_learning_rate) - ops.relu(LOG_LOW_RATE - log_learning_rate)
        )
    if config.learning_rate_shortcut:
        inputs.append(log_learning_rate - LOG_REFERENCE_RATE)
    if config.nominal:
        inputs.append(log_learning_rate - log_nominal_rate)
    return ops.concatenate(inputs, axis=0) if len(inputs) > 1 else inputs[0]
