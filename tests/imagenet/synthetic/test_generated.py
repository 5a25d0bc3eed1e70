"""The generated set: TFDS opens it, and it is whole or not there."""

import collections
import dataclasses
import io
import itertools
import json
import os
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
from imagenet.synthetic.generated import (
    generated_folder,
    make_generated,
    recorded_settings,
)

SETTINGS = GeneratedConfig(
    num_classes=5, num_images=33, num_validation_images=10, seed=3
)

RECORD = {"format": generated.FORMAT, **dataclasses.asdict(SETTINGS)}


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
        drawn = drawing.draw(int(example["label"]), index, 5, seed=3)
        assert example["image"].shape == drawn.shape
        # JPEG loses a little, above all of the noise.
        difference = example["image"].astype(float) - drawn
        assert np.abs(difference).mean() < 12
        if split == "train":
            synset = stem.split("_")[0]
            assert synset == info.features["label"].int2str(example["label"])


def test_a_second_call_leaves_it_alone(made):
    files = sorted(generated_folder(made).iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    assert make_generated(made, SETTINGS) == generated_folder(made)
    assert sorted(generated_folder(made).iterdir()) == files
    assert [path.stat().st_mtime_ns for path in files] == before
    # Nothing is left beside it but the lock.
    names = {path.name for path in made.iterdir()}
    # TFDS makes the folder of downloads.
    assert names - {"downloads"} == {"imagenet2012", ".imagenet2012.lock"}


def test_records_its_settings(made):
    assert recorded_settings(made) == {
        "format": 1,
        "num_classes": 5,
        "num_images": 33,
        "num_validation_images": 10,
        "seed": 3,
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 6}, r"num_classes=5 \(wanted 6\)"),
        ({"num_images": 34}, r"num_images=33 \(wanted 34\)"),
        ({"num_validation_images": 9}, r"num_validation_images=10 \(wanted 9\)"),
        ({"seed": 0}, r"seed=3 \(wanted 0\)"),
    ],
)
def test_a_set_of_other_settings_is_an_error(made, changes, message):
    with pytest.raises(ValueError, match=message + ".*Delete that folder"):
        make_generated(made, dataclasses.replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    "text, message",
    [
        (json.dumps({**RECORD, "format": 0}), r"format=0 \(wanted 1\)"),
        ("{", "must be JSON"),
    ],
)
def test_a_record_that_will_not_do(made, tmp_path, text, message):
    shutil.copytree(made / "imagenet2012", tmp_path / "imagenet2012")
    (generated_folder(tmp_path) / "generated.json").write_text(text)
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


def test_a_disk_without_room(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="11,000 images need about 132 MB.*100 MB free"):
        make_generated(tmp_path, GeneratedConfig())
    assert not (tmp_path / "imagenet2012").exists()


def test_nothing_is_left_of_what_failed(tmp_path, monkeypatch):
    def broken(indices, num_classes, seed):
        yield from itertools.islice(jpegs.drawn_jpegs(indices, num_classes, seed), 7)
        raise RuntimeError("the eighth cannot be drawn")

    monkeypatch.setattr(generated, "drawn_jpegs", broken)
    with pytest.raises(RuntimeError, match="the eighth"):
        make_generated(tmp_path, SETTINGS)
    assert not list(tmp_path.glob("imagenet2012/*"))


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def full(indices, num_classes, seed):
        yield from itertools.islice(jpegs.drawn_jpegs(indices, num_classes, seed), 7)
        raise tf.errors.ResourceExhaustedError(None, None, "No space left\non device")

    monkeypatch.setattr(generated, "drawn_jpegs", full)
    with pytest.raises(OSError, match="must be written .*No space left on device"):
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
    assert image.shape == drawing.draw(9 % 4, 9, 4, seed=1).shape


def test_a_child_that_fails_is_noticed(monkeypatch):
    monkeypatch.setattr(jpegs, "_start", lambda part, *_: start(part))

    def start(part):
        code = "import sys; sys.stdout.write('abc'); sys.exit(3)"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

    with pytest.raises(ChildProcessError, match="exit status 3"):
        list(jpegs.drawn_jpegs(range(10), 4, 1, processes=2))


def command(data_dir, *arguments):
    """`python -m imagenet.synthetic.generated` of 4 classes, as a process."""
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "imagenet.synthetic.generated",
                f"--data_dir={data_dir}",
            ),
            *("--num_classes=4", "--num_validation_images=4", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_of(process):
    listing = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(listing) as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_killed_meanwhile_then_made_by_two_at_once(tmp_path):
    killed = command(tmp_path, "--num_images=100000")
    deadline = time.monotonic() + 60
    children = []
    while len(children) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        if list(tmp_path.glob("imagenet2012/incomplete.*")):
            children = children_of(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(children) >= 2
    assert not generated_folder(tmp_path).exists()
    assert list(tmp_path.glob("imagenet2012/incomplete.*"))

    makers = [command(tmp_path, "--num_images=40") for _ in range(2)]
    outputs = [maker.communicate(timeout=120) for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0], outputs
    folder = generated_folder(tmp_path)
    assert [output for output, _ in outputs] == [f"{folder}\n"] * 2
    # One of them drew, the other waited or came later.
    assert sum("Drawing 40" in log for _, log in outputs) == 1
    assert (
        tfds.builder("imagenet2012", data_dir=str(tmp_path))
        .info.splits["train"]
        .num_examples
        == 40
    )
    # What the killed one left is gone, and so are its children.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not any(os.path.exists(f"/proc/{child}") for child in children)

    refused = command(tmp_path, "--num_images=41")
    output, log = refused.communicate(timeout=120)
    assert refused.returncode == 1 and output == ""
    assert log.strip().startswith(
        "imagenet.synthetic.generated: --data_dir must hold no"
    )
    assert len(log.strip().splitlines()) == 1
