"""The order of records: every one once an epoch, and the same from anywhere on."""

import numpy as np
import pytest
import tensorflow as tf

from imagenet.input.record_order import Part, records_in_order, shuffled_records


def write_files(folder, counts):
    """TFRecord files whose records are numbered on."""
    paths, number = [], 0
    for file, count in enumerate(counts):
        paths.append(str(folder / f"{file:03d}"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for _ in range(count):
                writer.write(str(number).encode())
                number += 1
    return paths


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """By name: the part, and the numbers of the records in it."""
    folder = tmp_path_factory.mktemp("records")
    one = write_files(folder, [13])
    (folder / "many").mkdir()
    # More files than are read at a time, and the first and the last only in part.
    counts = np.array([3 + file % 4 for file in range(37)])
    many = write_files(folder / "many", counts)
    skips, takes = np.zeros(37, np.int64), counts.copy()
    skips[0], takes[0], takes[-1] = 2, 1, 2
    total = int(counts.sum())
    large = write_files(folder / "many", [1500])
    start, last = np.array([0]), total - int(counts[-1]) + 2
    return {
        "one file": (Part(one, start, np.array([13]), 9.0), range(13)),
        "many files": (Part(many, skips, takes, 9.0), range(2, last)),
        "one record": (Part(one, np.array([4]), np.array([1]), 9.0), range(4, 5)),
        # A shuffle that holds 1,000 records of these sees a part of them only.
        "large": (Part(large, start, np.array([1500]), 1e9), range(1500)),
    }


PARTS = ["one file", "many files", "one record", "large"]


def numbers(records, count):
    return [int(record) for record in records.take(count).as_numpy_iterator()]


@pytest.mark.parametrize("name", PARTS)
def test_each_epoch_has_every_record_once_in_an_order_of_its_own(parts, name):
    part, wanted = parts[name]
    assert part.count == len(wanted)
    read = numbers(shuffled_records(part, 0), 3 * part.count)
    epochs = [read[k : k + part.count] for k in range(0, len(read), part.count)]
    for epoch in epochs:
        assert sorted(epoch) == list(wanted)
    if part.count > 1:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        assert epochs[0] != list(wanted)
        assert numbers(shuffled_records(part, 1), part.count) != epochs[0]


@pytest.mark.parametrize("name", PARTS)
def test_goes_on_from_anywhere(parts, name):
    part, _ = parts[name]
    count = part.count
    whole = numbers(shuffled_records(part, 5), 2 * count + 40)
    for first in (count // 2, count, 2 * count + 1):
        # The global seed has no say.
        tf.random.set_seed(first)
        rest = numbers(shuffled_records(part, 5, first), 20)
        assert rest == whole[first : first + 20], first


@pytest.mark.parametrize("name", PARTS)
def test_in_order(parts, name):
    part, wanted = parts[name]
    assert numbers(records_in_order(part), -1) == list(wanted)


def test_files_of_an_epoch_are_mixed(parts):
    part, wanted = parts["many files"]
    first = numbers(shuffled_records(part, 0), part.count)
    # Neighbours in the order come from all over the files.
    assert np.abs(np.diff(first)).mean() > len(wanted) / 10


@pytest.mark.parametrize("name", ["one file", "many files", "large"])
def test_a_number_that_is_drawn_gives_an_order_of_its_own(parts, name):
    part, wanted = parts[name]
    drawn = tf.constant([1, 2], tf.int64)
    records = (shuffled_records(part, 0, extra_seed=seed) for seed in drawn)
    one, other = (numbers(each, part.count) for each in records)
    assert one != other
    assert sorted(one) == sorted(other) == list(wanted)


def test_files_are_mixed_where_memory_holds_a_part_of_them(tmp_path):
    """Read side by side, and in another order each epoch."""
    counts = np.full(20, 100)
    part = Part(write_files(tmp_path, counts), np.zeros(20, np.int64), counts, 1e9)
    records = shuffled_records(part, 0, num_pipelines=5)
    epochs = np.array(numbers(records, 2 * part.count)).reshape(2, -1)
    beginnings = [set(epoch[:200] // 100) for epoch in epochs]
    assert all(len(files) >= 12 for files in beginnings)
    # The last files of an epoch are those of the second group.
    groups = [set(epoch[-400:] // 100) for epoch in epochs]
    assert len(groups[0]) == len(groups[1]) == 4 and groups[0] != groups[1]
    assert groups[0] != {16, 17, 18, 19}


def test_no_records():
    part = Part([], np.array([], np.int64), np.array([], np.int64), 1.0)
    assert part.count == 0
    assert numbers(records_in_order(part), -1) == []
