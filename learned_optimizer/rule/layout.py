"""Tensors of any shapes behind one another in blocks: the layout of every state.

The RNN is the same for every parameter, so one update serves all parameters of
all tensors, of a model or of many problems side by side. Each tensor is flattened
row-major and padded to whole blocks of `block_size` elements; a packed array is
`[blocks, block_size]`, with its features in front: `[features, blocks,
block_size]`. What is one number a tensor is gathered once a block; what is a
mean over a tensor is a sum a block, followed by a short segment sum.

`Layout` describes such an arrangement, `pack` and `unpack` go there and back.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# One after another, a million equal numbers add up in float32 to one percent too much:
# each is rounded to what the sum so far has digits for. By groups the sum is as good
# as that of blocks.
ELEMENTS_PER_GROUP = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How tensors lie in packed blocks, and which problem each belongs to.

    Attributes:
        block_size: Elements in a block.
        block_tensor: `[blocks]` int32, the tensor of each block, ascending.
        block_elements: `[blocks]` int32, how many elements of a block are real;
            the rest is padding.
        tensor_problem: `[tensors]` int32, the problem of each tensor.
        tensor_elements: `[tensors]` float32, number of elements of each.
        tensor_widths: `[tensors]` float32, the width of each, see `width`; that of a
            square matrix where shapes are not known.
        num_tensors: Number of tensors.
        num_problems: Number of problems.
        blocks_per_chunk: Blocks that one turn of the update's loop takes; the last
            one of a shard overlaps the one before. None: no loop.
        shards: Number of equal parts, ranges of blocks, that are stored and
            passed over one by one, or side by side.
        block_group: `[blocks]` int32, where small blocks are summed by groups first,
            the group of each; None: no groups.
        group_tensor: `[groups]` int32, the tensor of each group.
        shapes: The tensors' shapes, where they are known beforehand.
        first_blocks: First block of each tensor, where that is known.
    """

    block_size: int
    block_tensor: Any
    block_elements: Any
    tensor_problem: Any
    tensor_elements: Any
    tensor_widths: Any
    num_tensors: Any
    num_problems: Any
    blocks_per_chunk: int | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    first_blocks: tuple[int, ...] | None = None
    shards: int = 1
    block_group: Any = None
    group_tensor: Any = None

    @classmethod
    def from_shapes(
        cls,
        shapes: Sequence[Sequence[int]],
        block_size: int = 512,
        blocks_per_chunk: int | None = None,
        problems: Sequence[int] | None = None,
        shards: int = 1,
    ) -> "Layout":
        """The layout of tensors whose shapes are known.

        A chunk has at most `blocks_per_chunk` blocks; None: no loop. The blocks are
        divided evenly, with a few of padding at the end, and a shard is a whole number
        of chunks. Problems, one a tensor, are counted from 0; None: all tensors belong
        to one.

        Raises:
            ValueError: If a number is out of its range or the lengths differ.
        """
        if not shapes:
            raise ValueError("A layout needs at least one tensor. Received: none")
        chunk = 1 if blocks_per_chunk is None else blocks_per_chunk
        if min(block_size, shards, chunk) < 1:
            raise ValueError(
                "`block_size`, `blocks_per_chunk` and `shards` must be positive. "
                f"Received: block_size={block_size}, "
                f"blocks_per_chunk={blocks_per_chunk}, shards={shards}"
            )
        shapes = tuple(tuple(int(size) for size in shape) for shape in shapes)
        if problems is None:
            problems = [0] * len(shapes)
        if len(problems) != len(shapes) or min(problems) < 0:
            raise ValueError(
                "`problems` must name a problem, counted from 0, for each of "
                f"{len(shapes)} tensors. Received: {list(problems)}"
            )
        elements = [math.prod(shape) for shape in shapes]
        blocks = [math.ceil(count / block_size) for count in elements]
        per_shard = math.ceil(max(1, sum(blocks)) / shards)
        chunks = 1
        if blocks_per_chunk is not None:
            chunks = math.ceil(per_shard / blocks_per_chunk)
            blocks_per_chunk = math.ceil(per_shard / chunks)
            per_shard = chunks * blocks_per_chunk
        padding = shards * per_shard - sum(blocks)
        block_elements = [
            min(block_size, count - start)
            for count in elements
            for start in range(0, count, block_size)
        ]
        return cls(
            block_size=block_size,
            # Blocks of padding count nothing, so they may belong to any tensor.
            block_tensor=np.pad(
                np.repeat(np.arange(len(shapes), dtype=np.int32), blocks),
                (0, padding),
                constant_values=len(shapes) - 1,
            ),
            block_elements=np.array(block_elements + [0] * padding, np.int32),
            tensor_problem=np.array(problems, np.int32),
            tensor_elements=np.array(elements, np.float32),
            tensor_widths=np.array([width(shape) for shape in shapes], np.float32),
            num_tensors=len(shapes),
            num_problems=int(max(problems)) + 1,
            blocks_per_chunk=None if chunks == 1 else blocks_per_chunk,
            shapes=shapes,
            first_blocks=tuple(int(x) for x in np.cumsum([0] + blocks[:-1])),
            shards=shards,
        )

    @classmethod
    def from_row_lengths(cls, row_lengths, num_elements) -> "Layout":
        """The layout of one problem's tensors whose lengths, `[tensors]`, are data.

        Blocks are of one element, so a flat `[elements]` array reshaped to
        `[elements, 1]` is packed as it is. `num_elements` is the sum of the lengths.
        """
        row_lengths = ops.cast(row_lengths, "int32")
        ends = ops.cumsum(row_lengths)
        positions = ops.arange(num_elements, dtype="int32")
        num_tensors = ops.shape(row_lengths)[0]
        block_tensor = _rows_of_positions(num_elements, ends)
        # How many groups there are is data; so many at most is not.
        num_groups = num_elements // ELEMENTS_PER_GROUP + num_tensors
        tensor_groups = -(-row_lengths // ELEMENTS_PER_GROUP)
        group_ends = ops.cumsum(tensor_groups)
        first_groups = ops.take(group_ends - tensor_groups, block_tensor, axis=0)
        in_tensor = positions - ops.take(ends - row_lengths, block_tensor, axis=0)
        group_tensor = _rows_of_positions(num_groups, group_ends)
        return cls(
            block_size=1,
            block_tensor=block_tensor,
            block_elements=ops.ones_like(positions),
            tensor_problem=ops.zeros_like(row_lengths),
            tensor_elements=ops.cast(row_lengths, "float32"),
            tensor_widths=ops.sqrt(ops.cast(row_lengths, "float32")),
            num_tensors=num_tensors,
            num_problems=1,
            block_group=first_groups + in_tensor // ELEMENTS_PER_GROUP,
            # Groups that are none hold nothing, so they may belong to any tensor.
            group_tensor=ops.minimum(group_tensor, num_tensors - 1),
        )

    @property
    def num_blocks(self):
        """Number of blocks, with those of padding."""
        return ops.shape(self.block_tensor)[0]

    @property
    def num_chunks(self) -> int:
        """Turns of the update's loop, in each shard."""
        if self.blocks_per_chunk is None:
            return 1
        return math.ceil(len(self.block_tensor) / (self.shards * self.blocks_per_chunk))

    def in_pieces(self, most_blocks: int) -> "Layout":
        """The same arrangement, each shard in chunks of at most so many blocks."""
        blocks = len(self.block_tensor) // self.shards
        pieces = math.ceil(blocks / most_blocks)
        size = None if pieces == 1 else math.ceil(blocks / pieces)
        return dataclasses.replace(self, blocks_per_chunk=size)

    @property
    def shard_blocks(self) -> list[slice]:
        """The range of blocks of each shard; all where their number is data."""
        if self.shapes is None:
            return [slice(None)]
        size = len(self.block_tensor) // self.shards
        return [slice(i * size, (i + 1) * size) for i in range(self.shards)]

    @property
    def block_problem(self):
        """`[blocks]` int32, the problem of each block."""
        return ops.take(self.tensor_problem, self.block_tensor, axis=0)

    def rows(self, rows: slice) -> "Layout":
        """The layout with a range of its blocks alone."""
        return dataclasses.replace(
            self,
            block_tensor=self.block_tensor[rows],
            block_elements=self.block_elements[rows],
            block_group=None if self.block_group is None else self.block_group[rows],
        )

    def mask(self):
        """`[blocks, block_size]` float32, 1 at real elements, 0 at padding."""
        positions = ops.arange(self.block_size, dtype="int32")
        elements = ops.convert_to_tensor(self.block_elements)
        return ops.cast(positions < elements[:, None], "float32")

    def blocks_of(self, tensor: int) -> slice:
        """The blocks of one tensor, where shapes are known."""
        first = self.first_blocks[tensor]
        count = math.prod(self.shapes[tensor])
        return slice(first, first + math.ceil(count / self.block_size))


def width(shape: Sequence[int]) -> float:
    """The width of a tensor, by which the steps of wide ones are made smaller.

    That of a square matrix is the length of its sides, that of one of `m` rows and `n`
    columns `4 / (m^-1/2 + n^-1/2)^2`. Half its root is how many times larger the
    spectral norm is where all entries agree, `sqrt(m n)`, than where they are
    independent, `sqrt(m) + sqrt(n)`. Of all divisions of a tensor's axes into those of
    rows and of columns the one counts by which it is widest.
    """
    halves = [(shape[:axis], shape[axis:]) for axis in range(len(shape) + 1)]
    sides = [[math.prod(half) for half in pair] for pair in halves]
    return max(4 / (m**-0.5 + n**-0.5) ** 2 if m * n else 0.0 for m, n in sides)


def _rows_of_positions(count, ends):
    """`[count]` int32, in which of the rows that end before `ends` each position lies.

    A search would take XLA as many steps a position as there are rows.
    """
    rows_ended = segment_sum(ops.ones_like(ends), ends, count + 1)
    return ops.cumsum(rows_ended)[:-1]


def sum_blocks(per_block, layout: Layout, rows=slice(None)):
    """`[tensors, ...]` sums of `[blocks, ...]` float32, of all blocks or of `rows`."""
    if layout.block_group is None:
        return segment_sum(per_block, layout.block_tensor[rows], layout.num_tensors)
    num_groups = ops.shape(layout.group_tensor)[0]
    groups = segment_sum(per_block, layout.block_group[rows], num_groups)
    return segment_sum(groups, layout.group_tensor, layout.num_tensors)


def segment_sum(data, segment_ids, num_segments):
    """As `ops.segment_sum`, in the dtype of `data` whatever PyTorch's default is."""
    if keras.backend.backend() != "torch":
        return ops.segment_sum(data, segment_ids, num_segments)
    data = ops.convert_to_tensor(data)
    zeros = ops.zeros((num_segments, *data.shape[1:]), data.dtype)
    return zeros.index_add(0, ops.convert_to_tensor(segment_ids), data)


def pack(tensors: Sequence[Any], layout: Layout):
    """Packs tensors into `[blocks, block_size]` float32, see `pack_shards`."""
    return concatenated(pack_shards(tensors, layout))


def pack_shards(tensors: Sequence[Any], layout: Layout) -> list[Any]:
    """Packs tensors into `[blocks, block_size]` float32, an array a shard.

    They are in the order of a layout made from shapes; None stands for zeros.
    """
    shards = [[] for _ in range(layout.shards)]
    size = len(layout.block_tensor) * layout.block_size // layout.shards
    used = 0

    def add(flat, count):
        nonlocal used
        for shard, piece in _parts(used, count, size):
            if flat is None:
                shards[shard].append(ops.zeros((piece.stop - piece.start,), "float32"))
            else:
                whole = piece == slice(0, count)
                shards[shard].append(flat if whole else flat[piece])
        used += count

    for tensor, shape in zip(tensors, layout.shapes, strict=True):
        flat, count = tensor, math.prod(shape)
        if tensor is not None:
            flat = ops.cast(tensor, "float32")
            # Most tensors of a model are vectors, and each operation on each counts.
            if len(shape) != 1:
                flat = ops.reshape(flat, (-1,))
        add(flat, count)
        add(None, -count % layout.block_size)
    add(None, size * layout.shards - used)
    return [ops.reshape(concatenated(x), (-1, layout.block_size)) for x in shards]


def unpack(packed, layout: Layout) -> list[Any]:
    """The tensors of a `[blocks, block_size]` array, in their shapes.

    Or of a list of such arrays, one a shard.
    """
    shards = packed if isinstance(packed, list) else [packed]
    flat = [ops.reshape(shard, (-1,)) for shard in shards]
    size = flat[0].shape[0]
    tensors = []
    for first_block, shape in zip(layout.first_blocks, layout.shapes, strict=True):
        start, count = first_block * layout.block_size, math.prod(shape)
        pieces = []
        for shard, piece in _parts(start, count, size):
            first = start + piece.start - shard * size
            pieces.append(flat[shard][first : first + piece.stop - piece.start])
        value = concatenated(pieces) if count else flat[0][:0]
        tensors.append(value if len(shape) == 1 else ops.reshape(value, shape))
    return tensors


def _parts(start, count, size):
    """Yields shards of `size` elements, and slices of `count` elements from `start`."""
    done = 0
    while done < count:
        shard = (start + done) // size
        end = min(count, (shard + 1) * size - start)
        yield shard, slice(done, end)
        done = end


def concatenated(arrays: Sequence[Any], axis: int = 0):
    """One array of one or several."""
    return ops.concatenate(arrays, axis=axis) if len(arrays) > 1 else arrays[0]


def rows_of_blocks(blocks: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`[elements, features]` rows of one tensor's `[features, blocks, block_size]`."""
    return blocks.reshape(blocks.shape[0], -1)[:, : math.prod(shape)].T


def blocks_of_rows(rows: np.ndarray, block_size: int) -> np.ndarray:
    """The reverse, padded with 0 to whole blocks."""
    elements, features = rows.shape
    blocks = math.ceil(elements / block_size)
    padded = np.zeros((features, blocks * block_size), rows.dtype)
    padded[:, :elements] = rows.T
    return padded.reshape(features, blocks, block_size)
