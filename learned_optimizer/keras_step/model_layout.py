"""How the tensors of a model are arranged: the sizes of blocks, chunks and shards.

The arrangement follows from the shapes alone, the same on every device and backend, so
that a state saved on one goes on on another.
"""

import math

from learned_optimizer.rule.layout import Layout

# Of the largest blocks there are fewest, and each needs something of its tensor.
BLOCK_SIZE = 256
# Smaller ones waste less where many tensors are small. Below this, loops over the
# elements of a block are too short for the vector units (measured: BUILD_NOTES.md).
SMALLEST_BLOCK_SIZE = 64
# Padding costs as much time and memory as parameters do.
LARGEST_PADDING = 0.25
# 8,192 parameters: what the update of one chunk reads and writes stays in the cache of
# a core (measured: BUILD_NOTES.md).
CHUNK_SIZE = 32 * BLOCK_SIZE
# Shards run side by side, so there are enough for a few cores, but none so small that
# starting it costs more than what it does.
MAX_SHARDS = 8
SMALLEST_SHARD = 8 * CHUNK_SIZE


def model_layout(shapes) -> Layout:
    """The layout of tensors of these shapes, one problem.

    Args:
        shapes: Their shapes; none at all are as one tensor without elements.
    """
    counts = [math.prod(shape) for shape in shapes]
    size_allowed = (1 + LARGEST_PADDING) * sum(counts)
    block_size = BLOCK_SIZE
    while (
        block_size >= 2 * SMALLEST_BLOCK_SIZE
        and _packed_size(counts, block_size) > size_allowed
    ):
        block_size //= 2
    packed = _packed_size(counts, block_size)
    return Layout.from_shapes(
        shapes or [(0,)],
        block_size=block_size,
        blocks_per_chunk=CHUNK_SIZE // block_size,
        shards=max(1, min(MAX_SHARDS, packed // SMALLEST_SHARD)),
    )


def _packed_size(counts, block_size) -> int:
    return sum(math.ceil(count / block_size) * block_size for count in counts)
