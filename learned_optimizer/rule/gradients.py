"""Which gradients the rule can use: finite ones, of a bounded size."""

from keras import ops

from learned_optimizer.rule.layout import Layout

# The square of a larger one, summed over a tensor, would overflow float32 and spoil
# the state for good. The scaled gradient saturates long before.
LARGEST_GRADIENT = 1e15


def finite_tensors(gradients, layout: Layout):
    """`[tensors]` float32, 1 where all of a tensor's gradient is finite.

    Args:
        gradients: `[blocks, block_size]`.
        layout: Where each tensor lies.
    """
    broken_blocks = ops.logical_not(ops.all(ops.isfinite(gradients), axis=-1))
    broken = ops.segment_sum(
        ops.cast(broken_blocks, "float32"), layout.block_tensor, layout.num_tensors
    )
    return ops.cast(ops.equal(broken, 0), "float32")
