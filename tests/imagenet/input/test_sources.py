"""Any set that TFDS knows: its splits, classes and images, and what can be wrong."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from imagenet.input.config import DataConfig
from imagenet.input.data import open_images
from imagenet.input.sources import open_source
from tests.imagenet.small_data import encoded, in_the_middle, smooth_picture

COUNTS = {"train": 6, "test": 4}


def features(channels=3, encoding="jpeg", label=None, **others):
    shape = (None, None, channels)
    image = tfds.features.Image(shape=shape, encoding_format=encoding)
    label = label or tfds.features.ClassLabel(num_classes=3)
    return tfds.features.FeaturesDict({"image": image, "label": label, **others})


def picture(number, channels=3, size=40):
    image = smooth_picture(size, size + 10 * (number % 3))
    image = np.roll(image, 5 * number, axis=1)
    return image if channels == 3 else image[..., :1]


def store(data_dir, features, splits, name="small"):
    """Writes a set with TFDS."""
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets=splits,
        data_dir=data_dir,
    )


def store_pictures(data_dir, counts=COUNTS, channels=3, encoding="jpeg", **others):
    """Writes a set each of whose images is a `picture` of its number."""

    def example(n):
        image = picture(n, channels)
        return {"image": image, "label": n % 3, **dict.fromkeys(others, 1)}

    splits = {
        split: [(f"{split}{n}", example(n)) for n in range(count)]
        for split, count in counts.items()
    }
    store(data_dir, features(channels, encoding, **others), splits)


@pytest.mark.parametrize(
    "channels, encoding, others",
    [
        (3, "jpeg", {}),
        (3, "png", {}),
        (1, "png", {}),
        (1, "jpeg", {"weight": tfds.features.Scalar(np.int64)}),
    ],
)
def test_a_set_without_file_names(tmp_path, channels, encoding, others):
    """With its own splits and classes; other features are left alone."""
    store_pictures(tmp_path, COUNTS, channels, encoding, **others)
    data = open_images(DataConfig("small", str(tmp_path), image_size=32))
    assert (data.num_classes, data.num_train_images) == (3, 6)
    assert data.num_validation_images == 4
    images, labels, weights = next(iter(data.evaluation_batches(4)))
    assert weights.numpy().sum() == 4 and sorted(labels.numpy()) == [0, 0, 1, 2]
    # Each is the middle of its picture, by PIL.
    places = []
    for number in range(4):
        wanted = in_the_middle(picture(number, channels), 32)
        differences = [np.abs(image - wanted).mean() for image in images.numpy()]
        places.append(int(np.argmin(differences)))
        assert min(differences) < 0.06 and labels[places[-1]] == number % 3
    assert sorted(places) == [0, 1, 2, 3]
    batches = data.training_batches(3).take(2)
    assert {int(label) for batch in batches for label in batch[1]} == {0, 1, 2}


@pytest.mark.parametrize(
    "splits, wanted",
    [
        ({}, (6, 4)),
        ({"validation_split": "train[:50%]"}, (6, 3)),
        ({"train_split": "train[:4]+test", "validation_split": "train[4:]"}, (8, 2)),
    ],
)
def test_splits(tmp_path, splits, wanted):
    store_pictures(tmp_path)
    data = open_images(DataConfig("small", str(tmp_path), image_size=32, **splits))
    assert (data.num_train_images, data.num_validation_images) == wanted
    shards = [
        data.training_batches(1, shard=shard, num_shards=2).take(wanted[0] // 2)
        for shard in range(2)
    ]
    labels = [int(batch[1][0]) for shard in shards for batch in shard]
    assert len(labels) == wanted[0] and set(labels) == {0, 1, 2}


@pytest.mark.parametrize(
    "splits, message",
    [
        ({"train_split": "training"}, "'training' .* splits train .6 images., test"),
        ({"validation_split": "test[:0]"}, r"--validation_split .* 'test\[:0\]'"),
        ({"train_split": "train[:x]"}, "--train_split must name images that there are"),
        # A set of one split: it is said how to divide it.
        (None, r"'train\[90%:\]'.*splits train \(6 images"),
    ],
)
def test_splits_that_there_are_not(tmp_path, splits, message):
    store_pictures(tmp_path, {"train": 6} if splits is None else COUNTS)
    with pytest.raises(ValueError, match=message):
        open_source(DataConfig("small", str(tmp_path), **(splits or {})))


@pytest.mark.parametrize(
    "label, named",
    [
        ({"label": tfds.features.Scalar(np.int64)}, "'label': Scalar"),
        ({}, "'image': Image"),
    ],
)
def test_other_features_are_named(tmp_path, label, named):
    example = {"image": picture(0), **dict.fromkeys(label, 1)}
    others = tfds.features.FeaturesDict({"image": tfds.features.Image(), **label})
    store(tmp_path, others, {"train": [("a", example)]}, "other")
    with pytest.raises(ValueError, match=f"must have the features .*{named}"):
        open_source(DataConfig("other", str(tmp_path)))


def test_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="must be generated, .*'no_such_set'") as error:
        open_source(DataConfig("no_such_set", str(tmp_path)))
    assert "\n" not in str(error.value)


def test_what_tfds_cannot_prepare_is_one_line(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no network\nat all")

    mnist = tfds.builder_cls("mnist")
    monkeypatch.setattr(mnist, "download_and_prepare", unreachable)
    with pytest.raises(OSError, match="mnist must be in .*no network at all") as error:
        open_source(DataConfig("mnist", str(tmp_path)))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("mnist/*"))


def test_bad_images_without_names_are_told_by_their_content(tmp_path, capfd):
    examples, whole = [], encoded(smooth_picture())
    for name, content in (("whole", whole), ("cut", whole[:300])):
        path = tmp_path / name
        path.write_bytes(content)
        examples.append((name, {"image": path, "label": 1}))
    store(tmp_path, features(), {"train": examples, "test": examples})
    data = open_images(DataConfig("small", str(tmp_path), image_size=32))
    (batch,) = data.evaluation_batches(2)
    assert sorted(batch[2].numpy()) == [0, 1]
    said = capfd.readouterr().err
    assert re.search(r'Skipped "record \d+ of class 1" which', said)


def of_metadata(change):
    def damage(folder):
        path = folder / "dataset_info.json"
        path.write_text(change(path.read_text()))

    return damage


def of_training(change):
    return lambda folder: change(next(folder.glob("*-train.tfrecord-*")))


def remove_all_but_the_settings(folder):
    for path in folder.iterdir():
        if path.name != "generated.json":
            path.unlink()


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            of_training(pathlib.Path.unlink),
            "Missing: 1, the first 'imagenet2012-train.tfrecord",
        ),
        (
            of_training(lambda path: path.write_bytes(path.read_bytes()[:-1])),
            "bytes of 'train'. Received: .* a file is cut off",
        ),
        (
            lambda folder: (folder / "dataset_info.json").unlink(),
            "metadata|--dataset must be a data set",
        ),
        (remove_all_but_the_settings, "a folder without its metadata|metadata"),
        (of_metadata(lambda text: text[:100]), "metadata are damaged"),
        (
            of_metadata(lambda text: text.replace('"tfrecord"', '"array_record"')),
            "must hold TFRecord files.*'array_record'",
        ),
    ],
)
def test_damaged_records(tmp_path, damage, message):
    counts = dict(num_classes=2, num_images=4, num_validation_images=2)
    config = DataConfig("generated", str(tmp_path), **counts)
    open_source(config)
    damage(tmp_path / "imagenet2012/5.1.0")
    with pytest.raises(ValueError, match=message) as caught:
        open_source(config)
    assert re.search("[Dd]elete|another --data_dir", str(caught.value))
    assert "\n" not in str(caught.value)


def test_generated_images_need_a_folder_of_this_machine():
    with pytest.raises(ValueError, match="Received: 'gs://bucket/data'"):
        open_source(DataConfig("generated", "gs://bucket/data"))
