"""The generated set: TFDS opens it, and it is whole or not there."""

import collections
import dataclasses
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from imagenet.synthetic import drawing, generated, jpegs
from imagenet.synthetic.config import GeneratedConfig
from imagenet.synthetic.generated import make_generated

COUNTS = {"num_classes": 5, "num_images": 33, "num_validation_images": 10}
SETTINGS = GeneratedConfig(**COUNTS, seed=3)
FOLDER = "imagenet2012/5.1.0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    make_generated(data_dir, SETTINGS)
    return data_dir


@pytest.mark.parametrize(
    "split, count, first",
    [("train", 33, 0), ("validation", 10, drawing.FIRST_VALIDATION_INDEX)],
)
def test_tfds_opens_it_unmodified(made, split, count, first):
    loaded, info = tfds.load(
        "imagenet2012", data_dir=str(made), split=split, with_info=True, download=False
    )
    real = tfds.builder_cls("imagenet2012")(data_dir=str(made / "elsewhere")).info
    assert info.full_name == real.full_name == "imagenet2012/5.1.0"
    assert repr(info.features) == repr(real.features)
    assert info.features["label"].names == real.features["label"].names
    examples = list(loaded.as_numpy_iterator())
    assert len(examples) == count
    assert len({example["file_name"] for example in examples}) == count
    labels = collections.Counter(int(example["label"]) for example in examples)
    assert sorted(labels) == list(range(5))
    assert max(labels.values()) - min(labels.values()) <= 1
    for example in examples:
        stem = example["file_name"].decode().removesuffix(".JPEG")
        index = first + int(stem.split("_")[-1]) - 1
        drawn = drawing.draw(int(example["label"]), index, seed=3)
        assert example["image"].shape == drawn.shape
        # JPEG loses a little, above all of the noise.
        difference = example["image"].astype(float) - drawn
        assert np.abs(difference).mean() < 12
        if split == "train":
            synset = stem.split("_")[0]
            assert synset == info.features["label"].int2str(example["label"])


def test_a_second_call_leaves_it_alone(made):
    def times():
        return {path: path.stat().st_mtime_ns for path in (made / FOLDER).iterdir()}

    before = times()
    assert make_generated(made, SETTINGS) == made / FOLDER
    assert times() == before
    record = json.loads((made / FOLDER / "generated.json").read_text())
    assert record == {"format": 1, **COUNTS, "seed": 3}
    # Nothing is left beside it but the lock.
    names = {path.name for path in made.iterdir()}
    # TFDS makes the folder of downloads.
    assert names - {"downloads"} == {"imagenet2012", ".imagenet2012.lock"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 6}, r"num_classes \(5 there, 6 now"),
        ({"num_images": 34}, r"num_images \(33 there, 34 now"),
        ({"num_validation_images": 9}, r"num_validation_images \(10 there, 9 now"),
        ({"seed": 0}, r"seed \(3 there, 0 now"),
    ],
)
def test_a_set_of_other_settings_is_an_error(made, changes, message):
    with pytest.raises(ValueError, match="must be new.*" + message):
        make_generated(made, dataclasses.replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    "change, message",
    [(('"format": 1', '"format": 0'), r"format \(0 there, 1 now"), (("}", ""), "JSON")],
)
def test_a_record_that_will_not_do(made, tmp_path, change, message):
    shutil.copytree(made / "imagenet2012", tmp_path / "imagenet2012")
    record = tmp_path / FOLDER / "generated.json"
    record.write_text(record.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        make_generated(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 1}, "num_classes must be .*2 or more and at most 1000"),
        ({"num_classes": 1001}, "num_classes must be .* Received: num_classes=1001"),
        ({"num_images": 99}, "must be num_classes or more. Received: num_images=99"),
        ({"num_validation_images": 0}, "num_validation_images must be .*1 or more"),
        ({"seed": -1}, "seed must be .*0 or more. Received: seed=-1"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        GeneratedConfig(**changes)
    # An image of each class is enough.
    assert GeneratedConfig(num_images=100).num_classes == 100


def test_a_disk_without_room(tmp_path, disk_of):
    disk_of(100_000_000)
    with pytest.raises(OSError, match="11,000 images need about 132 MB.*100 MB free"):
        make_generated(tmp_path, GeneratedConfig())
    assert not (tmp_path / "imagenet2012").exists()


NO_SPACE = tf.errors.ResourceExhaustedError(None, None, "No space left\non device")


@pytest.mark.parametrize(
    "error, raised",
    [
        (RuntimeError("must be written to? No space left on device"), RuntimeError),
        (NO_SPACE, OSError),
    ],
)
def test_nothing_is_left_of_what_failed(tmp_path, monkeypatch, error, raised):
    def broken(indices, num_classes, seed):
        yield from itertools.islice(jpegs.drawn_jpegs(indices, num_classes, seed), 7)
        raise error

    monkeypatch.setattr(generated, "drawn_jpegs", broken)
    with pytest.raises(raised, match="must be written .*No space left on device"):
        make_generated(tmp_path, SETTINGS)
    assert not list(tmp_path.glob("imagenet2012/*"))


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="--data_dir must be a folder"):
        make_generated(tmp_path / "file", SETTINGS)
    assert (tmp_path / "file").read_text() == "kept"


def test_several_processes_draw_what_one_draws():
    indices = range(7, 30)
    alone = list(jpegs.drawn_jpegs(indices, 4, 1, processes=1))
    assert list(jpegs.drawn_jpegs(indices, 4, 1, processes=3)) == alone
    image = np.asarray(Image.open(io.BytesIO(alone[2])))
    assert image.shape == drawing.draw(9 % 4, 9, seed=1).shape


def test_a_child_that_fails_is_noticed(monkeypatch):
    def start(numbers):
        code = "import sys; sys.stdout.write('abc'); sys.exit(3)"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

    monkeypatch.setattr(jpegs, "_start", start)
    with pytest.raises(ChildProcessError, match="exit status 3"):
        list(jpegs.drawn_jpegs(range(10), 4, 1, processes=2))


def making(data_dir, num_images):
    """A process that makes a set of 4 classes."""
    script = (
        "from absl import logging\n"
        "from imagenet.synthetic.generated import GeneratedConfig, make_generated\n"
        "logging.set_verbosity(logging.INFO)\n"
        f"config = GeneratedConfig(4, {num_images}, 4)\n"
        f"print(make_generated({str(data_dir)!r}, config))\n"
    )
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", script], **pipes)


def children_of(process):
    listing = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in listing.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_killed_meanwhile_then_made_by_two_at_once(tmp_path):
    killed = making(tmp_path, 100_000)
    deadline = time.monotonic() + 60
    children = []
    while len(children) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        if list(tmp_path.glob("imagenet2012/incomplete.*")):
            children = children_of(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(children) >= 2
    folder = tmp_path / FOLDER
    assert not folder.exists()
    assert list(tmp_path.glob("imagenet2012/incomplete.*"))

    makers = [making(tmp_path, 40) for _ in range(2)]
    outputs = [maker.communicate(timeout=120) for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0], outputs
    assert [output for output, _ in outputs] == [f"{folder}\n"] * 2
    # One of them drew, the other waited or came later.
    assert sum("Drawing 44" in log for _, log in outputs) == 1
    info = tfds.builder("imagenet2012", data_dir=str(tmp_path)).info
    assert info.splits["train"].num_examples == 40
    # What the killed one left is gone, and so are its children.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
