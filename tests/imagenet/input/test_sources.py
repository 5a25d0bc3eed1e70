"""The real builder on small tar files; what is wrong with files is said before long."""

import re
import shutil

import pytest
import tensorflow_datasets as tfds

from imagenet.input.sources import open_generated, open_imagenet
from imagenet.synthetic.generated import GeneratedSettings
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

SMALL = GeneratedSettings(num_classes=2, num_images=4, num_validation_images=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with tar files and what TFDS made of them."""
    data_dir = tmp_path_factory.mktemp("imagenet")
    put_tars(data_dir, train_tar(), validation_tar())
    open_imagenet(data_dir)
    return data_dir


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("generated")
    open_generated(data_dir, SMALL)
    return data_dir


def test_prepares_the_tar_files(prepared):
    loaded, info = tfds.load(
        "imagenet2012",
        data_dir=str(prepared),
        decoders={"image": tfds.decode.SkipDecoding()},
        with_info=True,
        download=False,
    )
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
    builder = open_imagenet(tmp_path)
    assert builder.info.splits["train"].num_examples == 5 * len(SYNSETS)
    # The version that an older TFDS wrote.
    (tmp_path / "imagenet2012/5.1.0").rename(tmp_path / "imagenet2012/5.0.0")
    info = tmp_path / "imagenet2012/5.0.0/dataset_info.json"
    info.write_text(
        info.read_text().replace('"version": "5.1.0"', '"version": "5.0.0"')
    )
    builder = open_imagenet(tmp_path)
    assert str(builder.version) == "5.0.0"
    assert builder.info.splits["train"].num_examples == 5 * len(SYNSETS)


TRAIN, VALIDATION = train_tar(1), validation_tar()
PICTURE = encoded(smooth_picture())


@pytest.mark.parametrize(
    "train, validation, message",
    [
        (None, None, "Received: a folder without any of these. .*--dataset=generated"),
        (TRAIN, None, "Missing: ILSVRC2012_img_val.tar"),
        (None, VALIDATION, "Missing: ILSVRC2012_img_train.tar"),
        (TRAIN[:-1000], VALIDATION, "img_train.tar.* it is cut off"),
        # A cut at the end of a block.
        (TRAIN[:4096], VALIDATION, "img_train.tar.* it is cut off"),
        (TRAIN, VALIDATION[: len(VALIDATION) // 2], "img_val.tar.* it is cut off"),
        (TRAIN, b"", "img_val.tar.* 0 bytes"),
        (bytes(10240), VALIDATION, "img_train.tar.* begins with None"),
        (b"x" * 9216 + bytes(1024), VALIDATION, "img_train.tar.* Download it again"),
        (VALIDATION, VALIDATION, "begins with 'ILSVRC2012_val_00000001.JPEG'"),
        (TRAIN, TRAIN, "begins with 'n01440764.tar'"),
        (
            tar_of({"n00000000.tar": tar_of({"n00000000_1.JPEG": PICTURE})}),
            VALIDATION,
            "must be those of ImageNet 2012. .*n00000000",
        ),
        (
            tar_of({"n01440764.tar": tar_of({"n01440764_1.JPEG": PICTURE})[:1000]}),
            VALIDATION,
            "must be those of ImageNet 2012",
        ),
    ],
)
def test_tar_files_that_will_not_do(tmp_path, train, validation, message):
    put_tars(tmp_path, train, validation)
    with pytest.raises(ValueError, match=message) as caught:
        open_imagenet(tmp_path)
    assert "\n" not in str(caught.value)
    # Nothing that could pass for a whole set.
    assert not list(tmp_path.glob("imagenet2012/*"))


@pytest.mark.parametrize("name", ["missing", "file"])
def test_no_folder(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder.*where there is none"):
        open_imagenet(tmp_path / name)


def test_no_room(tmp_path, monkeypatch):
    put_tars(tmp_path, TRAIN, VALIDATION)
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs about .* GB of disk. Received: 0.0 GB"):
        open_imagenet(tmp_path)


def test_what_a_killed_process_left_goes(tmp_path):
    """It is as large as the set, and the next process would need the room twice."""
    put_tars(tmp_path, train_tar(1), validation_tar())
    left = tmp_path / "imagenet2012" / "incomplete.ABC123_5.1.0"
    left.mkdir(parents=True)
    (left / "imagenet2012-train.tfrecord").write_bytes(b"half")
    open_imagenet(tmp_path)
    assert [path.name for path in (tmp_path / "imagenet2012").iterdir()] == ["5.1.0"]


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


@pytest.mark.parametrize("is_generated", [False, True])
@pytest.mark.parametrize(
    "what, message",
    [
        ("a file is missing", "Missing: 1, the first 'imagenet2012-train.tfrecord"),
        ("a file is cut off", "bytes of 'train'. Received: .* a file is cut off"),
        ("no metadata", "must hold the metadata that TFDS writes"),
        ("no files", "a folder without its metadata"),
        ("metadata cut off", "must hold the metadata that TFDS writes"),
        ("a split is missing", "must hold the splits train and validation"),
        ("another format", "must hold TFRecord files.*'array_record'"),
    ],
)
def test_damaged_records(prepared, generated, tmp_path, is_generated, what, message):
    source = generated if is_generated else prepared
    shutil.copytree(source / "imagenet2012", tmp_path / "imagenet2012")
    damage(tmp_path / "imagenet2012/5.1.0", what)
    with pytest.raises(ValueError, match=message) as caught:
        if is_generated:
            open_generated(tmp_path, SMALL)
        else:
            open_imagenet(tmp_path)
    assert re.search("Delete that folder|another --data_dir", str(caught.value))
    assert "\n" not in str(caught.value)


def test_generated_images_do_not_pass_for_imagenet(generated):
    with pytest.raises(ValueError, match="holds generated images.*--dataset=generated"):
        open_imagenet(generated)


def test_imagenet_is_not_overwritten_by_generated_images(prepared):
    before = sorted(prepared.rglob("*"))
    with pytest.raises(ValueError, match="was not made by.*--dataset=imagenet2012"):
        open_generated(prepared, SMALL)
    assert sorted(prepared.rglob("*")) == before


def test_generated_images_need_a_folder_of_this_machine():
    with pytest.raises(ValueError, match="Received: 'gs://bucket/data'"):
        open_generated("gs://bucket/data", SMALL)
