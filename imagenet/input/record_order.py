"""The order in which records are read: another each epoch, the same in every run.

An epoch takes the files in groups: the records of a group are interleaved and shuffled
among themselves. So a run that goes on from the middle of an epoch leaves out whole
groups unread, and records of one group unparsed. Which file comes when, and what a
shuffle draws, follow from the seed, the epoch and the group alone; TensorFlow's global
seed has no say.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# Files read side by side.
_GROUP_FILES = 16
# What a shuffle may hold in memory. A small set fits in whole.
_SHUFFLE_BYTES = 256_000_000


class Part(NamedTuple):
    """Some records of a split: from each file a run of them.

    Attributes:
        paths: `[files]`.
        skips: int64 `[files]`, records of the file that come before.
        takes: int64 `[files]`, records of the file that are in this part.
        record_bytes: mean size of a record.
    """

    paths: list[str]
    skips: np.ndarray
    takes: np.ndarray
    record_bytes: float

    @property
    def count(self) -> int:
        """The number of records."""
        return int(self.takes.sum())


def part_of_split(builder, split: str, shard: int, num_shards: int) -> Part:
    """One of `num_shards` shards, which differ by one record at most."""
    splits = builder.info.splits
    files = []
    # TFDS refuses to describe a part without records.
    if shard < splits[split].num_examples:
        own = tfds.even_splits(split, num_shards)[shard]
        files = splits[own].file_instructions
    return Part(
        [str(file.filename) for file in files],
        np.array([file.skip for file in files], np.int64),
        np.array([file.take for file in files], np.int64),
        max(1.0, sum(s.num_bytes for s in splits.values()) / splits.total_num_examples),
    )


def records_in_order(part: Part) -> tf.data.Dataset:
    """The serialized records once, as they lie in the files."""
    files = (part.paths, part.skips, part.takes)
    if not part.paths:
        return tf.data.Dataset.from_tensor_slices(tf.constant([], tf.string))
    return tf.data.Dataset.from_tensor_slices(files).flat_map(_read)


def shuffled_records(
    part: Part, seed: int, first: int = 0, num_pipelines: int = 1, extra_seed=0
) -> tf.data.Dataset:
    """Serialized records without end, epoch after epoch, each in another order.

    The part has one record at least, and the first ones are left out. `num_pipelines`
    such datasets share this process's memory, and the order depends on it. An extra
    seed, a number or an int64 tensor, is for another order and needs `first` 0.
    """
    files = len(part.paths)
    groups = -(-files // _GROUP_FILES)
    paths, skips, takes = (tf.constant(field) for field in part[:3])
    epoch, within = divmod(first, part.count)
    first_group = left_out = 0
    if within:
        with tf.init_scope():
            sizes = part.takes[_file_order(files, seed, epoch).numpy()]
        groups_of_files = range(0, files, _GROUP_FILES)
        sizes = [sizes[k : k + _GROUP_FILES].sum() for k in groups_of_files]
        starts = np.cumsum([0, *sizes])
        first_group = int(np.searchsorted(starts, within, "right")) - 1
        left_out = within - int(starts[first_group])
    room = _SHUFFLE_BYTES / part.record_bytes / num_pipelines
    buffer = int(min(part.count, max(1_000 // min(num_pipelines, 5), room)))

    def group_records(number):
        epoch, group = number // groups, number % groups
        places = _file_order(files, seed + extra_seed, epoch)
        places = places[group * _GROUP_FILES : (group + 1) * _GROUP_FILES]
        chosen = [tf.gather(field, places) for field in (paths, skips, takes)]
        records = tf.data.Dataset.from_tensor_slices(tuple(chosen)).interleave(
            _read,
            cycle_length=_GROUP_FILES,
            block_length=1,
            num_parallel_calls=min(files, _GROUP_FILES),
            deterministic=True,
        )
        # In this function's graph alone: without it the shuffle would draw from the
        # global seed, too. Not 0, which means none.
        tf.random.set_seed(seed + 1)
        return records.shuffle(
            buffer, number + extra_seed, reshuffle_each_iteration=False
        )

    first_number = epoch * groups + first_group
    numbers = tf.data.Dataset.range(first_number, np.iinfo(np.int64).max)
    return numbers.flat_map(group_records).skip(left_out)


def _read(path, skip, take):
    return tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(skip).take(take)


def _file_order(files, seed, epoch):
    """A permutation of the files, int32 `[files]`."""
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.index_shuffle(tf.range(files), key, files - 1)
