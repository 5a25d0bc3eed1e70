"""Batches: what is in them, that nothing but their step decides it, bad files."""

import collections
import dataclasses
import io
import math
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imagenet.input.data import DataConfig, open_images
from imagenet.input.record_order import part_of_split, records_in_order
from tests.imagenet.small_data import (
    KINDS,
    SYNSETS,
    encoded,
    image_files,
    in_the_middle,
    put_tars,
    smooth_picture,
    tar_of,
    validation_tar,
)

SIZE = 32


@pytest.fixture(scope="module")
def imagenet(prepared):
    """The set of a few files, some of them bad, opened."""
    return open_images(DataConfig("imagenet2012", str(prepared), SIZE))


def arrays(batches, count):
    return list(batches.take(count).as_numpy_iterator())


def equal(first, second):
    """Whether lists of batches are the same, number for number."""
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for batches in zip(first, second, strict=True)
        for a, b in zip(*batches, strict=True)
    )


@pytest.fixture(scope="module")
def first_batch(data):
    return arrays(data.training_batches(4), 1)[0]


def test_shapes_and_counts(data):
    spec = data.training_batches(4).element_spec
    assert [(tuple(part.shape), part.dtype) for part in spec] == [
        ((4, SIZE, SIZE, 3), tf.float32),
        ((4,), tf.int32),
        ((4,), tf.float32),
    ]
    assert spec == data.evaluation_batches(4).element_spec
    assert data.num_classes == 5
    assert (data.num_train_images, data.num_validation_images) == (23, 5)


@pytest.mark.parametrize("shard, num_shards", [(0, 1), (1, 3)])
def test_a_run_that_goes_on_sees_what_another_sees(settings, data, shard, num_shards):
    part = dict(shard=shard, num_shards=num_shards)
    # Several epochs, whose ends lie within batches.
    whole = arrays(data.training_batches(4, **part), 14)
    for first in (1, 12):
        tf.random.set_seed(first)
        again = open_images(settings)
        rest = arrays(again.training_batches(4, first_step=first, **part), 2)
        assert equal(rest, whole[first : first + 2]), first
    assert not equal(whole[:1], whole[1:2])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"min_crop_area": 0.5},
        {"colour_distortion": True},
        {"horizontal_flip": False},
        {"image_size": 40},
    ],
)
def test_each_setting_matters(settings, first_batch, changes):
    other = open_images(dataclasses.replace(settings, **changes))
    assert not equal([first_batch], arrays(other.training_batches(4), 1))


@pytest.mark.parametrize("what", ["seed", "number", "drawn"])
def test_crops_are_drawn_from(settings, data, what):
    """Seed, number of the image and what a worker drew, each by itself."""
    part = part_of_split(data._source.builder, "train", 0, 1)
    record = next(iter(records_in_order(part)))
    other = open_images(dataclasses.replace(settings, seed=1))
    changed = {"seed": (other, 7, 0), "number": (data, 8, 0), "drawn": (data, 7, 1)}
    numbers = (data, 7, 0), changed[what], (data, 7, 0)
    one, two, again = (
        images._training_image(record, tf.constant(number, tf.int64), drawn)[0].numpy()
        for images, number, drawn in numbers
    )
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(one, again)


def test_no_two_shards_draw_crops_from_one_number(data, monkeypatch):
    def numbered(record, number, extra_seed):
        return tf.zeros([1, 1, 3]) + tf.cast(number, tf.float32), 0, 1.0

    monkeypatch.setattr(data, "_training_image", numbered)
    seen = []
    for shard in range(3):
        batches = arrays(data.training_batches(5, shard=shard, num_shards=3), 3)
        seen += [image[0, 0, 0] for batch in batches for image in batch[0]]
    assert sorted(seen) == list(range(45))


@pytest.mark.parametrize("num_shards", [1, 4])
def test_shards_have_all_images_once_an_epoch(data, num_shards):
    # TFDS wrote one file, so most shards are parts of it.
    labels, shares = [], []
    for shard in range(num_shards):
        share = 23 // num_shards + (shard < 23 % num_shards)
        batches = data.training_batches(1, shard=shard, num_shards=num_shards)
        read = arrays(batches, share)
        labels += [int(batch[1][0]) for batch in read]
        shares += [batch[0] for batch in read]
    assert collections.Counter(labels) == {0: 5, 1: 5, 2: 5, 3: 4, 4: 4}
    different = {share.tobytes() for share in shares}
    assert len(different) == 23


@pytest.mark.parametrize(
    "batch_size, num_shards", [(5, 1), (3, 1), (2, 2), (1, 6), (16, 3)]
)
def test_evaluation_covers_every_image_once(data, batch_size, num_shards):
    whole = arrays(data.evaluation_batches(5), 2)
    assert len(whole) == 1 and whole[0][2].sum() == 5
    shards = [dict(shard=shard, num_shards=num_shards) for shard in range(num_shards)]
    read = [arrays(data.evaluation_batches(batch_size, **part), -1) for part in shards]
    (batches,) = {len(batches) for batches in read}
    assert batches == math.ceil(math.ceil(5 / num_shards) / batch_size)
    images, labels, weights = (
        np.concatenate([batch[part] for batches in read for batch in batches])
        for part in range(3)
    )
    assert np.all(images[weights == 0] == 0)
    assert np.array_equal(images[weights == 1], whole[0][0])
    assert np.array_equal(labels[weights == 1], whole[0][1])


@pytest.mark.parametrize("kind", KINDS)
def test_image_files_of_every_kind(imagenet, kind):
    (batch,) = arrays(imagenet.evaluation_batches(len(KINDS)), 2)
    # Records lie in the order of a hash of their names, so find the one wanted.
    examples = list(_examples(imagenet))
    assert len(examples) == len(KINDS)
    number = list(KINDS).index(kind) + 1
    names = [example["file_name"] for example in examples]
    place = names.index(b"ILSVRC2012_val_%08d.JPEG" % number)
    image, label, weight = (part[place] for part in batch)
    assert weight == KINDS[kind]
    assert label == examples[place]["label"]
    if not weight:
        assert np.all(image == 0)
        return
    content = image_files(smooth_picture())[kind]
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(image - in_the_middle(picture, SIZE)).max() < 0.06


def _examples(data):
    """Records of validation as they lie in the file, in another way."""
    builder = data._source.builder
    (path,) = builder.info.splits["validation"].filepaths
    for record in tf.data.TFRecordDataset(str(path)):
        example = tf.train.Example.FromString(record.numpy()).features.feature
        yield {
            "file_name": example["file_name"].bytes_list.value[0],
            "label": example["label"].int64_list.value[0],
        }


def test_bad_files_are_skipped_and_named(imagenet, capfd):
    # Each synset has four good images and one that is cut off.
    per_epoch = 5 * len(SYNSETS)
    (epoch, again) = arrays(imagenet.training_batches(per_epoch), 2)
    for _, labels, weights in (epoch, again):
        assert collections.Counter(labels) == {0: 5, 1: 5, 2: 5}
        assert collections.Counter(labels[weights == 0]) == {0: 1, 1: 1, 2: 1}
    assert not np.array_equal(epoch[0], again[0])
    named = re.findall('Skipped "(.*)" which cannot be decoded', capfd.readouterr().err)
    assert set(named) == {f"{synset}_cut.JPEG" for synset in SYNSETS}


def test_half_of_the_training_images_are_mirrored(tmp_path):
    # One picture, dark on the left; its crops are nearly the whole of it.
    x = np.broadcast_to(np.linspace(0, 255, 60), (60, 60))
    picture = encoded(np.stack([x] * 3, -1).astype(np.uint8))
    files = {f"{SYNSETS[0]}_{number}.JPEG": picture for number in range(200)}
    put_tars(tmp_path, tar_of({f"{SYNSETS[0]}.tar": tar_of(files)}), validation_tar())
    config = DataConfig("imagenet2012", str(tmp_path), SIZE, min_crop_area=0.9)
    ((images, _, _),) = arrays(open_images(config).training_batches(200), 1)
    mirrored = images[:, :, 0].mean((1, 2)) > images[:, :, -1].mean((1, 2))
    # 200 tosses: four standard deviations are 28.
    assert 72 < sum(mirrored) < 128


def test_more_shards_than_images(data):
    with pytest.raises(ValueError, match="no more shards than the 23 training images"):
        data.training_batches(2, num_shards=24)
