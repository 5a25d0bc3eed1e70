"""How the tensors of a model are arranged: the sizes of blocks, chunks and shards.

The arrangement follows from the shapes alone, the same on every device and backend, so
that a state saved on one goes on on another.
"""

import dataclasses
import functools
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


def model_layout(shapes, in_chunks: bool = True) -> Layout:
    """The layout of tensors of these shapes, one problem.

    The same object for the same shapes, while it is among the last that were asked for:
    models of one kind then share what is traced for it.

    Args:
        shapes: Their shapes; none at all are as one tensor without elements.
        in_chunks: Whether a step loops over chunks. The arrangement is the same.
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
    return _layout(
        tuple(map(tuple, shapes)) or ((0,),),
        block_size,
        CHUNK_SIZE // block_size,
        max(1, min(MAX_SHARDS, packed // SMALLEST_SHARD)),
        in_chunks,
    )


@functools.lru_cache(maxsize=32)
def _layout(shapes, block_size, blocks_per_chunk, shards, in_chunks):
    layout = Layout.from_shapes(
        shapes, block_size=block_size, blocks_per_chunk=blocks_per_chunk, shards=shards
    )
    return layout if in_chunks else dataclasses.replace(layout, blocks_per_chunk=None)


def _packed_size(counts, block_size) -> int:
    return sum(math.ceil(count / block_size) * block_size for count in counts)
