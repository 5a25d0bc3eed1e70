"""A folder of images in class folders becomes records, once."""

import shutil

import numpy as np
import pytest
from PIL import Image

from imagenet.input.config import DataConfig
from imagenet.input.data import open_images
from imagenet.input.sources import open_source
from tests.imagenet.small_data import encoded, in_the_middle, smooth_picture

SPLITS = {"train": 4, "val": 2}
CLASSES = ("ant", "bee", "cat")


def put(folder, count, first=0):
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            image_format = ("JPEG", "PNG")[number % 2]
            shifted = np.roll(smooth_picture(40, 50), 7 * label + number, axis=1)
            path = folder / name / f"{number}.{image_format.lower()}"
            path.write_bytes(encoded(shifted, image_format))


@pytest.fixture
def folder(tmp_path):
    for split, count in SPLITS.items():
        put(tmp_path / "insects" / split, count)
    (tmp_path / "insects" / "README.txt").write_text("not an image")
    (tmp_path / "insects" / ".git").mkdir()
    return tmp_path / "insects"


def config(folder, tmp_path, **changes):
    return DataConfig(
        f"folder:{folder}", str(tmp_path / "data"), image_size=32, **changes
    )


def test_a_folder_a_split(folder, tmp_path):
    data = open_images(config(folder, tmp_path))
    assert (data.num_classes, data.num_train_images) == (3, 12)
    assert data.num_validation_images == 6
    (batch,) = data.evaluation_batches(6)
    assert sorted(batch[1].numpy()) == [0, 0, 1, 1, 2, 2] and batch[2].numpy().all()
    # Each image with the label of its own folder.
    for label, name in enumerate(CLASSES):
        images = batch[0].numpy()[batch[1].numpy() == label]
        for path in (folder / "val" / name).iterdir():
            wanted = in_the_middle(np.asarray(Image.open(path)), 32)
            assert min(np.abs(image - wanted).mean() for image in images) < 0.06


def test_records_are_written_once(folder, tmp_path):
    def times():
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}

    open_source(config(folder, tmp_path))
    before = times()
    open_source(config(folder, tmp_path))
    assert times() == before


def test_class_folders_alone_are_one_split(folder, tmp_path):
    with pytest.raises(ValueError, match=r"splits train \(12 images\)"):
        open_source(config(folder / "train", tmp_path))
    parts = {"train_split": "train[:8]", "validation_split": "train[8:]"}
    data = open_images(config(folder / "train", tmp_path, **parts))
    assert (data.num_train_images, data.num_validation_images) == (8, 4)
    labels = {int(x) for batch in data.evaluation_batches(2) for x in batch[1]}
    assert labels <= {0, 1, 2} and len(labels) > 1


@pytest.mark.parametrize(
    "change",
    [
        lambda path: put(path.parents[1], 1, first=9),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(encoded(smooth_picture())),
    ],
    ids=["more", "fewer", "another"],
)
def test_a_folder_that_has_changed_is_refused(folder, tmp_path, change):
    open_source(config(folder, tmp_path))
    change(folder / "train" / "ant" / "0.jpeg")
    with pytest.raises(ValueError, match="must hold the images of which .*, 18 of"):
        open_source(config(folder, tmp_path))


def test_damaged_records_are_refused(folder, tmp_path):
    open_source(config(folder, tmp_path))
    (path,) = (tmp_path / "data").rglob("dataset_info.json")
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match="Delete that folder|delete its folder"):
        open_source(config(folder, tmp_path))


def test_a_bad_image_is_named_by_its_file(folder, tmp_path, capfd):
    path = folder / "val" / "bee" / "0.jpeg"
    path.write_bytes(path.read_bytes()[:200])
    data = open_images(config(folder, tmp_path))
    list(data.evaluation_batches(6))
    assert 'Skipped "val/bee/0.jpeg" which' in capfd.readouterr().err


@pytest.mark.parametrize(
    "gone, message",
    [
        ([""], "must name a folder.*where there is none"),
        (["*/*"], "two class folders of images or more.*none"),
        (["*/bee", "*/cat"], "two class folders of images or more.*ant"),
        (["train/cat"], "must be classes of train. Received: cat in val"),
    ],
)
def test_folders_that_will_not_do(folder, tmp_path, gone, message):
    for pattern in gone:
        for path in list(folder.glob(pattern)) if pattern else [folder]:
            if path.is_dir():
                shutil.rmtree(path)
    with pytest.raises(ValueError, match=message):
        open_source(config(folder, tmp_path))
    assert not (tmp_path / "data").exists()


def test_no_room(folder, tmp_path, disk_of):
    disk_of(1000)
    with pytest.raises(OSError, match="need about .* GB of disk"):
        open_source(config(folder, tmp_path))
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))
