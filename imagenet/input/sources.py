"""Where images come from: a builder of TFDS, its two splits and its classes.

What can be wrong with the records and can be found out quickly is found out here,
before anything long begins.
"""

import dataclasses
import re

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from imagenet.input.config import FOLDER, GENERATED, IMAGENET, DataConfig
from imagenet.input.image_folder import folder_builder
from imagenet.input.imagenet2012 import imagenet_builder
from imagenet.records import one_line, prepare, prepare_alone, tfds_builder
from imagenet.synthetic.generated import NAME, VERSION, make_generated

# The first of them that there is, is evaluated on.
VALIDATION_SPLITS = ("validation", "test", "val", "valid")
# Bytes that TFRecord puts around each record: its length and two checksums.
_RECORD_FRAME = 16


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Records of labelled images; splits and their slices are named as TFDS does."""

    builder: tfds.core.DatasetBuilder
    train_split: str
    validation_split: str
    num_classes: int


def open_source(config: DataConfig) -> ImageSource:
    """The records that the settings name; they are written when they are missing.

    Raises:
        ValueError: There is no such set, it has other features or splits, its records
            are damaged, or those in the folder are of another set.
        OSError: The records cannot be written.
    """
    num_classes = None
    if config.dataset == GENERATED:
        builder = _generated_builder(config)
        num_classes = config.generated().num_classes
    elif config.dataset == IMAGENET:
        builder = imagenet_builder(config.data_dir)
    elif re.split("[:/]", config.dataset)[0] == IMAGENET:
        raise ValueError(
            f"--dataset={IMAGENET} must be without a version: one that is there is "
            f"read. Received: {config.dataset!r}"
        )
    elif config.dataset.startswith(FOLDER):
        builder = folder_builder(config.dataset.removeprefix(FOLDER), config.data_dir)
    else:
        builder = _tfds_builder(config)
    _check_format(builder)
    label = _check_features(builder)
    splits = _splits(builder, config)
    _check_files(builder, splits)
    return ImageSource(builder, *splits, num_classes or label.num_classes)


def _generated_builder(config):
    if "://" in config.data_dir:
        raise ValueError(
            "--data_dir of generated images must be a folder of this machine. "
            f"Received: {config.data_dir!r}"
        )
    make_generated(config.data_dir, config.generated())
    return tfds_builder(f"{NAME}:{VERSION}", config.data_dir)


def _tfds_builder(config):
    builder = tfds_builder(config.dataset, config.data_dir)
    if epath.Path(builder.data_dir).exists():
        return builder

    def write():
        logging.info("TFDS prepares %s in %s", config.dataset, builder.data_dir)
        try:
            prepare(builder)
        except Exception as error:
            # Of a download, an extraction or the set's own code: any of many.
            raise OSError(
                f"{config.dataset} must be in {config.data_dir!r}, or TFDS must be "
                f"able to prepare it there. Received: {one_line(error)}"
            ) from error

    prepare_alone(builder, config.data_dir, write)
    return tfds_builder(config.dataset, config.data_dir)


def _check_format(builder):
    if not builder.is_prepared():
        raise ValueError(
            f"{str(builder.data_dir)!r} must hold a whole TFDS set. Received: a folder "
            "without its metadata. Delete that folder to have it made again"
        )
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise ValueError(
            f"{str(builder.data_dir)!r} must hold TFRecord files, TFDS's default. "
            f"Received: {file_format!r}. Prepare them again in another --data_dir"
        )


def _check_features(builder):
    """The feature of the labels; refuses other features than an image and its class."""
    features = builder.info.features
    by_name = features if hasattr(features, "keys") else {}
    image, label = (by_name[n] if n in by_name else None for n in ("image", "label"))
    is_image = isinstance(image, tfds.features.Image) and (
        np.dtype(image.np_dtype).name in ("uint8", "uint16")
        and image.shape[-1] in (1, 3, 4)
    )
    is_label = isinstance(label, tfds.features.ClassLabel) and label.num_classes
    if not (is_image and is_label):
        raise ValueError(
            "--dataset must have the features `image`, of one or three channels of "
            f"bytes, and `label`, a class. Received: {builder.info.full_name}, which "
            f"has {' '.join(str(features).split())}"
        )
    return label


def _splits(builder, config):
    there = builder.info.splits
    described = ", ".join(f"{k} ({there[k].num_examples:,} images)" for k in there)
    default = next((name for name in VALIDATION_SPLITS if name in there), None)
    found = []
    for flag, split in (
        ("train_split", config.train_split or "train"),
        ("validation_split", config.validation_split or default),
    ):
        try:
            count = there[split].num_examples if split else 0
        except Exception:
            # An unknown name, or no name at all: TFDS raises one of several.
            count = 0
        if not count:
            raise ValueError(
                f"--{flag} must name images that there are, as --train_split='train"
                "[:90%]' --validation_split='train[90%:]'. Received: "
                f"{split!r} of {builder.info.full_name}, which has the splits "
                f"{described or 'none'}"
            )
        found.append(split)
    return tuple(found)


def _check_files(builder, splits):
    folder = str(builder.data_dir)
    advice = "Delete that folder to have it made again"
    for name, split in builder.info.splits.items():
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in splits):
            continue
        missing = [path.name for path in split.filepaths if not path.exists()]
        if missing:
            raise ValueError(
                f"{folder!r} must hold all {len(split.filepaths)} files of "
                f"{name!r}. Missing: {len(missing)}, the first {missing[0]!r}. {advice}"
            )
        there = sum(path.stat().length for path in split.filepaths)
        wanted = split.num_bytes + _RECORD_FRAME * split.num_examples
        if there < wanted:
            raise ValueError(
                f"{folder!r} must hold {wanted:,} bytes of {name!r}. Received: "
                f"{there:,}: a file is cut off. {advice}"
            )
