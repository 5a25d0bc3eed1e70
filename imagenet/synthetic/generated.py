"""A labelled set of drawn images on disk, in the format of TFDS's ImageNet 2012.

`tfds.load("imagenet2012", data_dir=...)` opens it, unmodified, and so does every
program that reads ImageNet that way. The 1,000 class names are those of ImageNet; a set
of fewer classes uses the first of them. A file beside the data says that they are drawn
and how; no other set in the same folder is ever replaced.
"""

import dataclasses
import json
import pathlib
import shutil

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import registered

from imagenet.records import prepare, prepare_alone
from imagenet.synthetic import drawing
from imagenet.synthetic.config import GeneratedConfig
from imagenet.synthetic.jpegs import drawn_jpegs
from learned_optimizer.utils import run_folder

NAME, VERSION = "imagenet2012", "5.1.0"
SETTINGS_FILE = "generated.json"
# Raised whenever the same settings no longer give the same images.
FORMAT = 1
# Bytes a record takes on disk, and some more.
_BYTES_AN_IMAGE = 12_000


def _record(config):
    """What is recorded beside the data."""
    return {"format": FORMAT, **dataclasses.asdict(config)}


def make_generated(data_dir, config: GeneratedConfig) -> pathlib.Path:
    """Makes the set, unless it is there already; other processes wait meanwhile.

    It is written under a temporary name and renamed when it is whole.

    Returns:
        The folder of the set, where TFDS looks for ImageNet.

    Raises:
        ValueError: `data_dir` holds another set.
        OSError: `data_dir` cannot be written, or the disk has not enough room.
    """
    data_dir = pathlib.Path(data_dir)
    folder = data_dir / NAME / VERSION
    if _is_made(folder, config):
        return folder
    if data_dir.exists() and not data_dir.is_dir():
        raise ValueError(
            f"--data_dir must be a folder. Received: {str(data_dir)!r}, a file"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    builder = _builder_class()(
        generated=config, data_dir=str(data_dir), version=VERSION
    )
    try:
        prepare_alone(builder, data_dir, lambda: _write(builder, data_dir, config))
    except OSError:
        # On a file system without locks another process may have been faster.
        if not _is_made(folder, config):
            raise
    # Another process may have made another set.
    _is_made(folder, config)
    return folder


def _is_made(folder, config):
    """Whether the set is there; refuses another one, and a damaged record of it."""
    path = folder / SETTINGS_FILE
    if folder.exists() and not path.exists():
        raise ValueError(
            f"--data_dir must hold no other {NAME} than a generated one. Received: "
            f"{str(folder)!r}, which was not made by "
            "`imagenet.synthetic.generated`. Name another --data_dir, or read that one "
            "with --dataset=imagenet2012"
        )
    run_folder.verify(path, _record(config), {})
    return folder.exists()


def _write(builder, data_dir, config):
    images = config.num_images + config.num_validation_images
    needed, free = images * _BYTES_AN_IMAGE, shutil.disk_usage(data_dir).free
    if free < needed:
        raise OSError(
            f"{images:,} images need about {needed / 1e6:,.0f} MB of disk. Received: "
            f"{free / 1e6:,.0f} MB free in {str(data_dir)!r}. Make room, or ask for "
            "fewer images"
        )
    logging.info("Drawing %d images of %d classes", images, config.num_classes)
    prepare(builder)


def _builder_class():
    """TFDS's builder of ImageNet with other images; in no registry."""
    real = tfds.builder_cls(NAME)
    with registered.skip_registration():

        class GeneratedBuilder(real):
            """The features, names and files of the real one, drawn images in them."""

            name = NAME
            pkg_dir_path = real.pkg_dir_path
            MANUAL_DOWNLOAD_INSTRUCTIONS = "None: the images are drawn."

            def __init__(self, *, generated, **arguments):
                self._generated = generated
                super().__init__(**arguments)

            def _split_generators(self, dl_manager):
                # In the temporary folder, which TFDS renames when the set is whole.
                text = json.dumps(_record(self._generated), indent=1) + "\n"
                pathlib.Path(self.data_dir, SETTINGS_FILE).write_text(text)
                return {
                    "train": self._examples(0, self._generated.num_images, "{0}_{1}"),
                    "validation": self._examples(
                        drawing.FIRST_VALIDATION_INDEX,
                        self._generated.num_validation_images,
                        "ILSVRC2012_val_{1:08d}",
                    ),
                }

            def _examples(self, first, count, file_name):
                """Keys and examples, the labels in turn."""
                names = self.info.features["label"].names
                classes, seed = self._generated.num_classes, self._generated.seed
                indices = range(first, first + count)
                images = drawn_jpegs(indices, classes, seed)
                for number, image in enumerate(images, 1):
                    label = (first + number - 1) % classes
                    name = file_name.format(names[label], number) + ".JPEG"
                    yield name, {"image": image, "label": label, "file_name": name}

    return GeneratedBuilder
