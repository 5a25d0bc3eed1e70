"""The arrangement of a model's tensors: what is padding, what runs side by side."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.keras_step.model_layout import (
    BLOCK_SIZE,
    CHUNK_SIZE,
    FORCE_PIECES,
    MAX_SHARDS,
    PIECE_SIZE,
    SMALLEST_BLOCK_SIZE,
    model_layout,
    runs_by_chunks,
)


@pytest.mark.parametrize(
    "shapes, block_size",
    [
        # Nothing to waste, or little of much.
        ([(256,)] * 10, 256),
        ([(3, 3, 64, 64), (64,), (64,)], 256),
        # 4,352 for 3,600 are 21% too many; 5,632 for 4,000 are 41%, 4,352 are 9%.
        ([(3_000,)] + [(120,)] * 5, 256),
        ([(3_000,)] + [(100,)] * 10, 128),
        # Many small ones.
        ([(64,)] * 500, 64),
        ([(8, 16)] * 500, 128),
        # However small: never below.
        ([()] * 5, SMALLEST_BLOCK_SIZE),
        ([(0,)], 256),
        ([], 256),
    ],
)
def test_blocks_are_smaller_where_large_ones_were_mostly_padding(shapes, block_size):
    layout = model_layout(shapes)
    assert layout.block_size == block_size
    assert layout.shapes == tuple(shapes or [(0,)])
    np.testing.assert_array_equal(
        layout.block_elements.sum(), sum(int(np.prod(shape)) for shape in shapes)
    )


@pytest.mark.parametrize(
    "shapes, shards",
    [
        ([(64,)] * 500, 1),
        ([(CHUNK_SIZE,)] * 15, 1),
        ([(CHUNK_SIZE,)] * 16, 2),
        ([(BLOCK_SIZE // 4,)] * 4 * (CHUNK_SIZE // BLOCK_SIZE) * 16, 2),
        ([(1000 * CHUNK_SIZE,)], MAX_SHARDS),
    ],
)
def test_shards_are_as_large_and_chunks_no_larger_than_wanted(shapes, shards):
    layout = model_layout(shapes)
    assert layout.shards == shards
    blocks_per_chunk = layout.blocks_per_chunk or len(layout.block_tensor)
    assert blocks_per_chunk * layout.block_size <= CHUNK_SIZE
    assert len({rows.stop - rows.start for rows in layout.shard_blocks}) == 1


@pytest.mark.parametrize(
    "shapes, blocks, turn",
    [
        ([(32 * BLOCK_SIZE,)], 32, None),
        ([(2 * 32 * BLOCK_SIZE,)], 2 * 32, 7),
        ([(3 * 31 * BLOCK_SIZE,)], 3 * 31, 7),
        ([(8 * 496 * BLOCK_SIZE,)], 8 * 496, 7),
        ([(8, 16)] * 500, 504, 15),
        ([(64,)] * 500, 500, 29),
    ],
)
def test_a_turn_is_an_odd_number_of_blocks(shapes, blocks, turn):
    layout = model_layout(shapes)
    assert layout.blocks_per_chunk == turn
    # A saved state has the padding that it had when its turns were larger.
    assert len(layout.block_tensor) == blocks


@pytest.mark.parametrize("size", [1_000, 8 * PIECE_SIZE, 50_000_003])
def test_an_accelerator_has_larger_chunks_and_the_same_arrangement(size):
    chunks, pieces = (model_layout([(size,)], in_chunks) for in_chunks in (True, False))
    np.testing.assert_array_equal(chunks.block_elements, pieces.block_elements)
    assert chunks.shard_blocks == pieces.shard_blocks
    blocks = len(pieces.block_tensor) // pieces.shards
    taken = pieces.blocks_per_chunk or blocks
    assert taken * pieces.block_size <= PIECE_SIZE
    assert blocks <= pieces.num_chunks * taken < blocks + pieces.num_chunks


def test_chunks_are_for_processors(monkeypatch):
    monkeypatch.delenv(FORCE_PIECES, raising=False)
    assert runs_by_chunks()
    with monkeypatch.context() as patch:
        patch.setenv(FORCE_PIECES, "1")
        assert not runs_by_chunks()
    devices = {"GPU": ["one"]}
    monkeypatch.setattr(tf.config, "list_physical_devices", devices.get)
    assert not runs_by_chunks()
