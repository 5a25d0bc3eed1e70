"""The real builder on small tar files; what is wrong with files is said before long."""

import shutil

import pytest
import tensorflow_datasets as tfds

from imagenet.input.config import DataConfig
from imagenet.input.imagenet2012 import imagenet_builder
from imagenet.input.sources import open_source
from tests.imagenet.small_data import (
    KINDS,
    SYNSETS,
    encoded,
    put_tars,
    smooth_picture,
    tar_of,
    train_tar,
    validation_tar,
)


def test_prepares_the_tar_files(prepared):
    builder = tfds.builder("imagenet2012", data_dir=str(prepared))
    info = builder.info
    decoders = {"image": tfds.decode.SkipDecoding()}
    loaded = builder.as_dataset(decoders=decoders)
    assert info.splits["train"].num_examples == 5 * len(SYNSETS)
    assert info.splits["validation"].num_examples == len(KINDS)
    names = info.features["label"].names
    for example in loaded["train"].as_numpy_iterator():
        synset = example["file_name"].decode().split("_")[0]
        assert names[example["label"]] == synset
        if b"cut" not in example["file_name"]:
            assert example["image"].endswith(b"\xff\xd9")


def test_reads_what_is_prepared_without_the_tar_files(prepared, tmp_path):
    shutil.copytree(prepared / "imagenet2012", tmp_path / "imagenet2012")
    old, new = (tmp_path / "imagenet2012" / version for version in ("5.0.0", "5.1.0"))
    builder = imagenet_builder(tmp_path)
    assert builder.info.splits["train"].num_examples == 5 * len(SYNSETS)
    # The version that an older TFDS wrote.
    new.rename(old)
    info = old / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"version": "5.1.0"', '"version": "5.0.0"'))
    builder = imagenet_builder(tmp_path)
    assert str(builder.version) == old.name
    assert builder.info.splits["train"].num_examples == 5 * len(SYNSETS)


TRAIN, VALIDATION = train_tar(1), validation_tar()
PICTURE = encoded(smooth_picture())
UNKNOWN = tar_of({"n00000000.tar": tar_of({"n00000000_1.JPEG": PICTURE})})
CUT_WITHIN = tar_of({"n01440764.tar": tar_of({"n01440764_1.JPEG": PICTURE})[:1000]})


@pytest.mark.parametrize(
    "train, validation, message",
    [
        (None, None, "without .*train.tar and .*_val.tar. .*--dataset=generated"),
        (TRAIN, None, "Received: .* without ILSVRC2012_img_val.tar"),
        (None, VALIDATION, "Received: .* without ILSVRC2012_img_train.tar"),
        (TRAIN[:-1000], VALIDATION, "img_train.tar.* it is cut off"),
        # A cut at the end of a block.
        (TRAIN[:4096], VALIDATION, "img_train.tar.* it is cut off"),
        (TRAIN, VALIDATION[: len(VALIDATION) // 2], "img_val.tar.* it is cut off"),
        (TRAIN, b"", "img_val.tar.* 0 bytes"),
        (bytes(10240), VALIDATION, "img_train.tar.* begins with None"),
        (b"x" * 9216 + bytes(1024), VALIDATION, "img_train.tar.* Download it again"),
        (VALIDATION, VALIDATION, "begins with 'ILSVRC2012_val_00000001.JPEG'"),
        (TRAIN, TRAIN, "begins with 'n01440764.tar'"),
        (UNKNOWN, VALIDATION, "must be those of ImageNet 2012. .*n00000000"),
        (CUT_WITHIN, VALIDATION, "must be those of ImageNet 2012"),
    ],
)
def test_tar_files_that_will_not_do(tmp_path, train, validation, message):
    put_tars(tmp_path, train, validation)
    with pytest.raises(ValueError, match=message) as caught:
        imagenet_builder(tmp_path)
    assert "\n" not in str(caught.value)
    # Nothing that could pass for a whole set.
    assert not list(tmp_path.glob("imagenet2012/*"))


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        with pytest.raises(ValueError, match="must be a folder.*where there is none"):
            imagenet_builder(tmp_path / name)


def test_no_room(tmp_path, disk_of):
    put_tars(tmp_path, TRAIN, VALIDATION)
    disk_of(10_000)
    with pytest.raises(OSError, match="needs about .* GB of disk. Received: 0.0 GB"):
        imagenet_builder(tmp_path)


def test_what_a_killed_process_left_goes(tmp_path):
    """It is as large as the set, and the next process would need the room twice."""
    put_tars(tmp_path, train_tar(1), validation_tar())
    left = tmp_path / "imagenet2012" / "incomplete.ABC123_5.1.0"
    left.mkdir(parents=True)
    (left / "imagenet2012-train.tfrecord").write_bytes(b"half")
    imagenet_builder(tmp_path)
    assert [path.name for path in (tmp_path / "imagenet2012").iterdir()] == ["5.1.0"]


def test_generated_images_do_not_pass_for_imagenet(tmp_path):
    counts = {"num_classes": 2, "num_images": 2, "num_validation_images": 1}
    open_source(DataConfig("generated", str(tmp_path), **counts))
    with pytest.raises(ValueError, match="holds generated images.*--dataset=generated"):
        imagenet_builder(tmp_path)


def test_versions_are_fixed(prepared):
    with pytest.raises(ValueError, match="must be without a version.*2012:5.1.0"):
        open_source(DataConfig("imagenet2012:5.1.0", str(prepared)))


def test_imagenet_is_not_overwritten_by_generated_images(prepared):
    before = sorted(prepared.rglob("*"))
    with pytest.raises(ValueError, match="was not made by.*--dataset=imagenet2012"):
        open_source(DataConfig("generated", str(prepared)))
    assert sorted(prepared.rglob("*")) == before
