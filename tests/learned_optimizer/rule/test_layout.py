"""Packed tensors: there and back, and sums over them."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.layout import Layout
from tests.arrays import assert_equal


@pytest.mark.parametrize(
    "lengths",
    [[5], [256, 1, 257], [0, 255, 0, 513, 0], [1] * 300, [1000, 0, 0], [0], []],
    ids=lambda lengths: f"{len(lengths)} tensors of {sum(lengths)} elements",
)
@pytest.mark.parametrize("compiled", [False, True])
def test_sums_over_tensors_whose_lengths_are_data(lengths, compiled):
    generator = np.random.default_rng(0)
    values = np.float32(generator.standard_normal((sum(lengths), 2)))

    @tf.function(jit_compile=compiled)
    def sums(values, lengths):
        layout = Layout.from_row_lengths(lengths, tf.shape(values)[0])
        return layout.block_tensor, packing.sum_blocks(values, layout)

    block_tensor, found = sums(values, tf.constant(lengths, tf.int32))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(block_tensor, rows)
    wanted = np.zeros((len(lengths), 2))
    np.add.at(wanted, rows, values)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    shapes=st.lists(
        st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5
    ),
    block_size=st.integers(1, 9),
    blocks_per_chunk=st.none() | st.integers(1, 5),
    shards=st.integers(1, 3),
)
def test_packing_goes_there_and_back(shapes, block_size, blocks_per_chunk, shards):
    layout = Layout.from_shapes(shapes, block_size, blocks_per_chunk, shards=shards)
    generator = np.random.default_rng(0)
    tensors = [np.float32(1 + generator.random(shape)) for shape in shapes]
    parts = packing.pack_shards(tensors, layout)
    packed = np.concatenate(parts)
    assert {len(part) * shards for part in parts} == {len(packed)}
    assert_equal(packing.unpack(parts, layout), tensors)
    mask = np.asarray(layout.mask())
    assert np.all((packed > 0) == (mask > 0))
    assert mask.sum() == sum(tensor.size for tensor in tensors)
    for i, tensor in enumerate(tensors):
        blocks = packed[None][:, layout.blocks_of(i)]
        rows = packing.rows_of_blocks(blocks, tensor.shape)
        np.testing.assert_array_equal(rows[:, 0], tensor.reshape(-1))
        again = packing.blocks_of_rows(rows, block_size)
        np.testing.assert_array_equal(again, blocks)


@pytest.mark.parametrize(
    "shape, matrix",
    [
        pytest.param((), (1, 1), id="scalar"),
        pytest.param((5000,), (1, 5000), id="bias"),
        pytest.param((784, 10), (784, 10), id="dense"),
        pytest.param((20_000, 64), (20_000, 64), id="embedding"),
        pytest.param((3, 3, 256, 512), (9 * 256, 512), id="convolution"),
        pytest.param((3, 3, 64, 1), (9, 64), id="depthwise convolution"),
        pytest.param((768, 12, 64), (768, 12 * 64), id="query of attention"),
        pytest.param((12, 64, 768), (12 * 64, 768), id="output of attention"),
    ],
)
def test_the_width_of_a_tensor_is_that_of_its_widest_matrix(shape, matrix):
    found = Layout.from_shapes([(9, 9), shape, (0, 3)]).tensor_widths
    rows, columns = np.sqrt(matrix)
    # Spectral norms of equal entries of size 1, and of independent ones.
    equal, independent = rows * columns, rows + columns
    np.testing.assert_allclose(found, [9, (2 * equal / independent) ** 2, 0], 1e-6)


def test_a_tensor_whose_shape_is_not_known_counts_as_square():
    layout = Layout.from_row_lengths(tf.constant([64, 1, 0]), 65)
    np.testing.assert_allclose(layout.tensor_widths, [8, 1, 0])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(shapes=[]), "at least one tensor"),
        (dict(shapes=[(2,)], block_size=0), "must be positive"),
        (dict(shapes=[(2,)], blocks_per_chunk=0), "must be positive"),
        (dict(shapes=[(2,)], problems=[0, 1]), "each of 1 tensors"),
        (dict(shapes=[(2,)], problems=[-1]), "counted from 0"),
    ],
)
def test_bad_layouts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Layout.from_shapes(**arguments)
