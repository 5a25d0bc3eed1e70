"""Gradients before the rule: what is not finite is left out, the rest is clipped.

And, with `gradient_decline`, how large those of a tensor are beside what they were.
"""

from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.rule.layout import Layout, concatenated, segment_sum, sum_blocks

# The square of a larger one, summed over a tensor, would overflow float32 and spoil
# the state for good. The scaled gradient saturates long before.
LARGEST_GRADIENT = 1e15
# Decay of the average of a tensor's squared gradients, over some twenty steps.
GRADIENT_SIZE_DECAY = 0.95
# Keeps the logarithm of a size of 0 finite.
GRADIENT_SIZE_EPSILON = 1e-30


class Clipping(NamedTuple):
    """Limits, as the arguments of Keras's optimizers of these names.

    Each is None or a positive number; the first one that is set counts.
    """

    clipvalue: Any = None
    clipnorm: Any = None
    global_clipnorm: Any = None


def clean_gradients(gradients, active, layout: Layout, clipping: Clipping):
    """Gradients that the rule can take, and which tensors have one.

    `gradients` is a list of `[blocks, block_size]`, one a shard, padding 0, and is
    emptied; `active`, `[tensors]`, is 1 where a tensor is to be updated; None:
    everywhere.

    Returns:
        The gradients, `active` with 0 where a gradient is not finite, and how many
        tensors that left out (an int32 scalar).
    """
    finite = _finite_tensors(gradients, layout)
    wanted = ops.ones_like(finite) if active is None else active
    skipped = ops.cast(ops.sum(wanted * (1 - finite)), "int32")
    active = wanted * finite
    value, norm, global_norm = clipping
    scales = None
    if value is None and (norm is not None or global_norm is not None):
        scales = _scales(gradients, active, layout, norm, global_norm)
    cleaned = []
    for rows in layout.shard_blocks:
        # One by one, so that no more than one of them is there twice.
        shard = ops.clip(gradients.pop(0), -LARGEST_GRADIENT, LARGEST_GRADIENT)
        if value is not None:
            shard = ops.clip(shard, -value, value)
        elif scales is not None:
            shard = shard * ops.take(scales, layout.block_tensor[rows])[:, None]
        cleaned.append(shard)
    return cleaned, active, skipped


def gradient_sizes(gradients, state, layout: Layout, active=None) -> dict:
    """The running average of each tensor's mean squared gradient, and its largest.

    That is the new `gradient_size` and `largest_gradient_size`, `[1, tensors]`, of
    gradients as `clean_gradients` returns them; where `active` is 0 both stay.
    """
    elements = ops.maximum(ops.convert_to_tensor(layout.tensor_elements), 1.0)
    squares = sum_blocks(_squares(gradients), layout) / elements
    decay = GRADIENT_SIZE_DECAY * state["started"]
    size = squares + decay * (state["gradient_size"] - squares)
    largest = ops.maximum(size, state["largest_gradient_size"])
    sizes = {"gradient_size": size, "largest_gradient_size": largest}
    if active is None:
        return sizes
    return {
        name: ops.where(active > 0, value, state[name]) for name, value in sizes.items()
    }


def log_decline(state):
    """`[1, tensors]`, log of the gradient's size over its largest so far; 0 or less."""
    size, largest = (
        ops.log(state[name] + GRADIENT_SIZE_EPSILON)
        for name in ("gradient_size", "largest_gradient_size")
    )
    return 0.5 * (size - largest)


def _finite_tensors(gradients, layout):
    """`[tensors]` float32, 1 where all of a tensor's gradient is finite."""
    finite = [ops.all(ops.isfinite(shard), axis=-1) for shard in gradients]
    broken_blocks = ops.logical_not(concatenated(finite))
    broken = segment_sum(
        ops.cast(broken_blocks, "float32"), layout.block_tensor, layout.num_tensors
    )
    return ops.cast(ops.equal(broken, 0), "float32")


def _scales(gradients, active, layout, norm, global_norm):
    """`[tensors]`, what clipping by norms multiplies gradients by."""
    # A larger element would be clipped to this first.
    limited = (
        ops.clip(shard, -LARGEST_GRADIENT, LARGEST_GRADIENT) for shard in gradients
    )
    squares = segment_sum(_squares(limited), layout.block_tensor, layout.num_tensors)
    limit = norm
    if norm is None:
        limit = global_norm
        squares = ops.sum(ops.where(active > 0, squares, 0.0))
    scales = limit / ops.maximum(ops.sqrt(squares), limit)
    return ops.broadcast_to(scales, (layout.num_tensors,))


def _squares(gradients):
    """`[blocks]` sums of squares of the blocks of all shards."""
    return concatenated([ops.sum(ops.square(x), axis=-1) for x in gradients])
