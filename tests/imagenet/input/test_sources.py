"""Any set that TFDS knows: its splits, classes and images, and what can be wrong."""

import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet.input.config import DataConfig
from imagenet.input.data import open_images
from imagenet.input.sources import open_source
from tests.imagenet.small_data import encoded, smooth_picture

# Real sets in TFDS's format.
REAL = pathlib.Path(
    os.environ.get(
        "TFDS_TEST_DATA",
        pathlib.Path(__file__).parents[3].parent / "shared" / "data" / "tfds",
    )
)
COUNTS = {"train": 6, "test": 4}


def features(channels=3, encoding="jpeg", label=None, **others):
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(None, None, channels), encoding_format=encoding
            ),
            "label": label or tfds.features.ClassLabel(num_classes=3),
            **others,
        }
    )


def picture(number, channels=3, size=40):
    image = smooth_picture(size, size + 10 * (number % 3))
    image = np.roll(image, 5 * number, axis=1)
    return image if channels == 3 else image[..., :1]


def store(data_dir, name="small", counts=COUNTS, channels=3, encoding="jpeg", **others):
    """Writes a set with TFDS; each image is a `picture` of its number."""

    def examples(split):
        return [
            (
                f"{split}{n}",
                {
                    "image": picture(n, channels),
                    "label": n % 3,
                    **dict.fromkeys(others, 1),
                },
            )
            for n in range(counts[split])
        ]

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features(channels, encoding, **others),
        split_datasets={split: examples(split) for split in counts},
        data_dir=data_dir,
    )


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
    store(tmp_path, "small", COUNTS, channels, encoding, **others)
    data = open_images(DataConfig("small", str(tmp_path), image_size=32))
    assert (data.num_classes, data.num_train_images) == (3, 6)
    assert data.num_validation_images == 4
    images, labels, weights = next(iter(data.evaluation_batches(4)))
    assert weights.numpy().sum() == 4 and sorted(labels.numpy()) == [0, 0, 1, 2]
    # Each is the middle of its picture, by PIL.
    found = 0
    for number in range(4):
        whole = picture(number, channels)
        height, width = whole.shape[:2]
        side = round(0.875 * min(height, width))
        top, left = (height - side) // 2, (width - side) // 2
        whole = np.broadcast_to(whole, (height, width, 3))
        middle = Image.fromarray(whole[top : top + side, left : left + side])
        wanted = np.asarray(middle.resize((32, 32), Image.Resampling.BILINEAR))
        wanted = wanted.astype(np.float32) / 127.5 - 1
        differences = [np.abs(image - wanted).mean() for image in images.numpy()]
        place = int(np.argmin(differences))
        assert differences[place] < 0.06 and labels[place] == number % 3
        found |= 1 << place
    assert found == 15
    seen = {
        int(label)
        for _, labels, _ in data.training_batches(3).take(2)
        for label in labels
    }
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    "splits, wanted",
    [
        ({}, (6, 4)),
        ({"validation_split": "train[:50%]"}, (6, 3)),
        ({"train_split": "train[:4]+test", "validation_split": "train[4:]"}, (8, 2)),
    ],
)
def test_splits(tmp_path, splits, wanted):
    store(tmp_path)
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
    ],
)
def test_splits_that_there_are_not(tmp_path, splits, message):
    store(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_source(DataConfig("small", str(tmp_path), **splits))


def test_a_set_of_one_split_says_how_to_divide_it(tmp_path):
    store(tmp_path, counts={"train": 6})
    with pytest.raises(ValueError, match=r"'train\[90%:\]'.*splits train \(6 images"):
        open_source(DataConfig("small", str(tmp_path)))


@pytest.mark.parametrize(
    "label, named",
    [
        (tfds.features.Scalar(np.int64), "'label': Scalar"),
        ("missing", "'image': Image"),
    ],
)
def test_other_features_are_named(tmp_path, label, named):
    feature = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            **({} if label == "missing" else {"label": label}),
        }
    )
    example = {"image": picture(0), **({} if label == "missing" else {"label": 1})}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="other",
        version="1.0.0",
        features=feature,
        split_datasets={"train": [("a", example)]},
        data_dir=tmp_path,
    )
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


def test_bad_images_without_names_are_told_by_their_content(tmp_path):
    whole = encoded(smooth_picture())
    examples = [
        (str(n), {"image": content, "label": 1})
        for n, content in enumerate([whole, whole[:300]])
    ]
    (tmp_path / "bytes").mkdir()
    for _, example in examples:
        path = tmp_path / "bytes" / str(len(example["image"]))
        path.write_bytes(example["image"])
        example["image"] = path
    tfds.dataset_builders.store_as_tfds_dataset(
        name="small",
        version="1.0.0",
        features=features(),
        split_datasets={"train": examples, "test": examples},
        data_dir=tmp_path,
    )
    data = open_images(DataConfig("small", str(tmp_path), image_size=32))
    (batch,) = data.evaluation_batches(2)
    assert sorted(batch[2].numpy()) == [0, 1]
    (name,) = data.skipped_images()
    assert re.fullmatch(r"record \d+ of class 1", name)


@pytest.mark.skipif(
    not (REAL / "mnist").is_dir(), reason=f"MNIST is not in {REAL} (TFDS_TEST_DATA)"
)
def test_real_mnist():
    """Grey PNG files of 28 px, without names and without a split `validation`."""
    data = open_images(DataConfig("mnist", str(REAL), image_size=32))
    assert (data.num_classes, data.num_train_images) == (10, 60_000)
    assert data.num_validation_images == 10_000
    images, labels, weights = next(iter(data.training_batches(200)))
    assert weights.numpy().all() and set(labels.numpy()) == set(range(10))
    images, labels, weights = next(iter(data.evaluation_batches(64)))
    loaded = tfds.load("mnist", split="test[:64]", data_dir=str(REAL), download=False)
    for image, label, example in zip(
        images.numpy(), labels.numpy(), loaded.as_numpy_iterator(), strict=True
    ):
        assert label == example["label"]
        # 24 of 28 pixels, in the middle, stretched.
        middle = Image.fromarray(example["image"][2:26, 2:26, 0])
        middle = np.asarray(middle.resize((32, 32), Image.Resampling.BILINEAR))
        for channel in range(3):
            error = np.abs(127.5 * (image[..., channel] + 1) - middle)
            assert error.mean() < 2 and error.max() < 12


def damage(folder, what):
    """Damages a prepared set."""
    if what == "a file is missing":
        next(folder.glob("*-train.tfrecord-*")).unlink()
    elif what == "a file is cut off":
        path = next(folder.glob("*-train.tfrecord-*"))
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "no metadata":
        (folder / "dataset_info.json").unlink()
    elif what == "no files":
        for path in folder.iterdir():
            if path.name != "generated.json":
                path.unlink()
    elif what == "metadata cut off":
        path = folder / "dataset_info.json"
        path.write_text(path.read_text()[:100])
    elif what == "a split is missing":
        path = folder / "dataset_info.json"
        path.write_text(path.read_text().replace('"validation"', '"test"'))
    elif what == "another format":
        path = folder / "dataset_info.json"
        path.write_text(path.read_text().replace('"tfrecord"', '"array_record"'))


@pytest.mark.parametrize(
    "what, message",
    [
        ("a file is missing", "Missing: 1, the first 'imagenet2012-train.tfrecord"),
        ("a file is cut off", "bytes of 'train'. Received: .* a file is cut off"),
        ("no metadata", "metadata|--dataset must be a data set"),
        ("no files", "a folder without its metadata|metadata"),
        ("metadata cut off", "metadata are damaged"),
        ("another format", "must hold TFRecord files.*'array_record'"),
    ],
)
def test_damaged_records(tmp_path_factory, tmp_path, what, message):
    config = DataConfig(
        "generated", str(tmp_path), num_classes=2, num_images=4, num_validation_images=2
    )
    open_source(config)
    damage(tmp_path / "imagenet2012/5.1.0", what)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(config)
    assert re.search("[Dd]elete|another --data_dir", str(caught.value))
    assert "\n" not in str(caught.value)


def test_generated_images_need_a_folder_of_this_machine():
    with pytest.raises(ValueError, match="Received: 'gs://bucket/data'"):
        open_source(DataConfig("generated", "gs://bucket/data"))
