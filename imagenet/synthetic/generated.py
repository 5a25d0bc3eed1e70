r"""A labelled set of drawn images on disk, in the format of TFDS's ImageNet 2012.

`tfds.load("imagenet2012", data_dir=...)` opens it, unmodified, and so does every
program that reads ImageNet that way. The 1,000 class names are those of ImageNet; a set
of fewer classes uses the first of them. A file beside the data says that they are drawn
and how; no other set in the same folder is ever replaced.

    python -m imagenet.synthetic.generated --data_dir=data --num_classes=100 \
        --num_images=10000
"""

import dataclasses
import json
import os
import pathlib
import shutil
import sys

# Before TensorFlow is imported: its notes on the processor are no news here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from imagenet.records import prepare, prepare_alone
from imagenet.synthetic import drawing
from imagenet.synthetic.config import GeneratedConfig
from imagenet.synthetic.jpegs import drawn_jpegs
from learned_optimizer.utils.flags import define_flags, flag_settings

NAME, VERSION = "imagenet2012", "5.1.0"
SETTINGS_FILE = "generated.json"
# Raised whenever the same settings no longer give the same images.
FORMAT = 1
# Bytes a record takes on disk, and some more.
_BYTES_AN_IMAGE = 12_000


def _record(config):
    """What is recorded beside the data."""
    return {"format": FORMAT, **dataclasses.asdict(config)}


def generated_folder(data_dir) -> pathlib.Path:
    """Where a generated set lies in `data_dir`: where TFDS looks for ImageNet."""
    return pathlib.Path(data_dir) / NAME / VERSION


def recorded_settings(data_dir) -> dict | None:
    """What is recorded of the generated set in `data_dir`; None where there is none.

    Raises:
        ValueError: the record is damaged.
    """
    path = generated_folder(data_dir) / SETTINGS_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} must be JSON. Received: {error}. Delete the folder it is "
            "in, or name another --data_dir"
        ) from error


def make_generated(data_dir, config: GeneratedConfig) -> pathlib.Path:
    """Makes the set, unless it is there already; other processes wait meanwhile.

    It is written under a temporary name and renamed when it is whole.

    Returns:
        The folder of the set, `generated_folder(data_dir)`.

    Raises:
        ValueError: `data_dir` holds another set.
        OSError: `data_dir` cannot be written, or the disk has not enough room.
    """
    folder = generated_folder(data_dir)
    if _is_made(data_dir, config):
        return folder
    data_dir = pathlib.Path(data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        raise ValueError(
            f"--data_dir must be a folder. Received: {str(data_dir)!r}, a file"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    builder = _builder_class()(
        generated=config, data_dir=os.fspath(data_dir), version=VERSION
    )
    try:
        prepare_alone(builder, data_dir, lambda: _write(builder, data_dir, config))
    except OSError:
        # On a file system without locks another process may have been faster.
        if not _is_made(data_dir, config):
            raise
    # Another process may have made another set.
    _is_made(data_dir, config)
    return folder


def _is_made(data_dir, config):
    """Whether the set is there.

    Raises:
        ValueError: another one is.
    """
    folder = generated_folder(data_dir)
    if not folder.exists():
        return False
    recorded = recorded_settings(data_dir)
    if recorded is None:
        raise ValueError(
            f"--data_dir must hold no other {NAME} than a generated one. Received: "
            f"{str(folder)!r}, which was not made by "
            "`imagenet.synthetic.generated`. Name another --data_dir, or read that one "
            "with --dataset=imagenet2012"
        )
    wanted = _record(config)
    if recorded != wanted:
        different = [
            f"{key}={recorded.get(key)} (wanted {wanted.get(key)})"
            for key in sorted(recorded.keys() | wanted.keys())
            if recorded.get(key) != wanted.get(key)
        ]
        raise ValueError(
            "--data_dir must hold no generated set of other settings. Received: "
            f"{str(folder)!r} with {', '.join(different)}. Delete that folder, name "
            "another --data_dir, or ask for the same settings"
        )
    return True


def _write(builder, data_dir, config):
    images = config.num_images + config.num_validation_images
    needed, free = images * _BYTES_AN_IMAGE, shutil.disk_usage(data_dir).free
    if free < needed:
        raise OSError(
            f"{images:,} images need about {needed / 1e6:,.0f} MB of disk. Received: "
            f"{free / 1e6:,.0f} MB free in {str(data_dir)!r}. Make room, or ask for "
            "fewer images"
        )
    logging.info(
        "Drawing %d training and %d validation images of %d classes",
        config.num_images,
        config.num_validation_images,
        config.num_classes,
    )
    prepare(builder)


def _builder_class():
    """TFDS's builder of ImageNet with other images; in no registry."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

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
                    label = indices[number - 1] % classes
                    name = file_name.format(names[label], number) + ".JPEG"
                    yield name, {"image": image, "label": label, "file_name": name}

    return GeneratedBuilder


def main(arguments):
    """Makes the set and says where it is."""
    if len(arguments) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {arguments[1:]}")
    try:
        config = GeneratedConfig(**flag_settings(GeneratedConfig))
        folder = make_generated(flags.FLAGS.data_dir, config)
    except (ValueError, OSError) as error:
        sys.exit(f"imagenet.synthetic.generated: {error}")
    print(folder)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder to make the set in.", required=True)
    define_flags(GeneratedConfig)
    logging.set_verbosity(logging.INFO)
    app.run(main)
