"""How the tensors of a model are arranged: the sizes of blocks, chunks and shards.

On a CPU a chunk fits a core's cache. Elsewhere it is as large as memory allows: what
lies between two matrix products is written out, up to 230 floats a parameter.

The arrangement follows from the shapes alone, the same on every device and backend, so
that a state saved on one goes on on another.
"""

import dataclasses
import functools
import math
import os

import keras

from learned_optimizer.rule.layout import Layout

# Of the largest blocks there are fewest, and each needs something of its tensor.
BLOCK_SIZE = 256
# Smaller ones waste less where many tensors are small. Below this, loops over the
# elements of a block are too short for the vector units (docs/what_was_tried.md).
SMALLEST_BLOCK_SIZE = 64
# Padding costs as much time and memory as parameters do.
LARGEST_PADDING = 0.25
# 8,192 parameters: shards are a whole number of such chunks.
CHUNK_SIZE = 32 * BLOCK_SIZE
# A turn of the loop takes so many parameters: what is computed for them stays in the
# cache of a core (docs/what_was_tried.md).
TURN_SIZE = 7 * BLOCK_SIZE
# Half a million parameters: some 0.5 GB while they are passed over, and enough to keep
# an accelerator busy.
PIECE_SIZE = 64 * CHUNK_SIZE
# Shards run side by side, so there are enough for a few cores, but none so small that
# starting it costs more than what it does.
MAX_SHARDS = 8
SMALLEST_SHARD = 8 * CHUNK_SIZE
# An environment variable: if it is set, steps run on a CPU as on an accelerator.
FORCE_PIECES = "HIERARCHICAL_RNN_FORCE_PIECES"


def model_layout(shapes, in_chunks: bool = True) -> Layout:
    """The layout of tensors of these shapes, one problem.

    The same object for the same shapes, while it is among the last that were asked for:
    models of one kind then share what is traced for it. No shapes at all are as one
    tensor without elements. With `in_chunks` a step loops over chunks, else over the
    pieces of an accelerator, in the same arrangement.
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
        None if in_chunks else math.ceil(PIECE_SIZE / block_size),
    )


@functools.lru_cache(maxsize=32)
def _layout(shapes, block_size, blocks_per_chunk, shards, blocks_per_piece):
    layout = Layout.from_shapes(
        shapes, block_size=block_size, blocks_per_chunk=blocks_per_chunk, shards=shards
    )
    if blocks_per_piece is not None:
        return layout.in_pieces(blocks_per_piece)
    if layout.blocks_per_chunk is None:
        return layout
    # An odd number of blocks, for features that lie a multiple of 4,096 bytes apart
    # drive each other out of a core's first cache.
    turn = min(TURN_SIZE // block_size | 1, layout.blocks_per_chunk)
    return dataclasses.replace(layout, blocks_per_chunk=turn)


def runs_by_chunks() -> bool:
    """Whether this backend's device has caches that chunks should fit.

    PyTorch runs op by op, where a loop only costs; so does an accelerator.
    """
    backend = keras.backend.backend()
    if backend == "torch" or os.environ.get(FORCE_PIECES):
        return False
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    import jax

    return jax.default_backend() == "cpu"


def _packed_size(counts, block_size) -> int:
    return sum(math.ceil(count / block_size) * block_size for count in counts)
