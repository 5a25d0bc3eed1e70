"""A folder of images in class folders, written once as records, as TFDS has them.

    PATH/train/CLASS/*.jpg, PATH/validation/CLASS/*.jpg     a folder a split
    PATH/CLASS/*.jpg                                        one split, `train`

The files are copied as they are; they are decoded when they are read.
"""

import hashlib
import json
import pathlib
import shutil

import tensorflow_datasets as tfds
from absl import logging

from imagenet.records import one_line, prepare, prepare_alone

NAME, VERSION = "image_folder", "1.0.0"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

# Of a split: each image's name, from the folder on, and its class.
Listing = dict[str, list[tuple[str, str]]]


def folder_builder(folder: str, data_dir: str):
    """TFDS's builder of the images of a folder, whose records are written if missing.

    Raises:
        ValueError: The folder holds no classes of images, or others than when the
            records were written.
        OSError: The records cannot be written.
    """
    root = pathlib.Path(folder).expanduser()
    listing = _listing(root)
    described = _describe(root, listing)
    path = str(root.resolve())
    config = f"{root.resolve().name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    records = pathlib.Path(data_dir) / NAME / config / VERSION
    if not records.exists():
        description = json.dumps(described)
        builder = _builder(
            root, listing, config=config, data_dir=data_dir, description=description
        )
        prepare_alone(
            builder, data_dir, lambda: _write(builder, data_dir, root, listing)
        )
    try:
        written = tfds.builder_from_directory(records)
        recorded = json.loads(written.info.description)
    except Exception as error:
        # Damaged metadata raise one of many, by where they break off.
        raise ValueError(
            f"{str(records)!r} must hold the records of {path}. Received: "
            f"{one_line(error)}. Delete that folder to have them written again"
        ) from error
    if recorded != described:
        raise ValueError(
            f"{path} must hold the images of which {str(records)!r} has the "
            f"records, {recorded.get('images')} of them. Received: "
            f"{described['images']} images, which differ in names or sizes. Delete "
            "that folder to have them written again, or name another --data_dir"
        )
    return written


def _listing(root) -> Listing:
    if not root.is_dir():
        raise ValueError(
            "--dataset=folder:PATH must name a folder. Received: "
            f"{str(root)!r}, where there is none"
        )
    listing: Listing = {}
    has_splits = not any(_images(folder) for folder in _folders(root))
    for split in _folders(root) if has_splits else [root]:
        found = [
            (str(image.relative_to(root)), folder.name)
            for folder in _folders(split)
            for image in _images(folder)
        ]
        if found:
            listing[split.name if has_splits else "train"] = found
    classes = {split: {label for _, label in names} for split, names in listing.items()}
    if not listing or max(map(len, classes.values())) < 2:
        raise ValueError(
            "--dataset=folder:PATH must hold two class folders of images or more, or "
            f"such folders in a folder a split ({', '.join(SUFFIXES)}). Received: "
            f"{str(root)!r} with {classes or 'none'}"
        )
    for split, names in classes.items():
        unknown = sorted(names - classes.get("train", names))
        if unknown:
            raise ValueError(
                "The classes of each split must be classes of train. Received: "
                f"{', '.join(unknown[:5])} in {split} of {str(root)!r} alone"
            )
    return listing


def _folders(folder):
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.is_dir())


def _images(folder):
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _describe(root, listing):
    """What the records are of; a change of names or sizes changes it."""
    digest = hashlib.sha256()
    for split, names in listing.items():
        for name, _ in names:
            digest.update(f"{split}/{name}:{(root / name).stat().st_size}\n".encode())
    count = sum(map(len, listing.values()))
    digest = digest.hexdigest()
    return {"folder": str(root.resolve()), "images": count, "sha256": digest}


def _builder(root, listing, **arguments):
    labels = sorted({label for names in listing.values() for _, label in names})
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=labels),
        "file_name": tfds.features.Text(),
    }
    # TFDS reads the file of a path, as it is.
    examples = {
        split: [
            (name, {"image": root / name, "label": label, "file_name": name})
            for name, label in names
        ]
        for split, names in listing.items()
    }
    return tfds.dataset_builders.AdhocBuilder(
        name=NAME,
        version=VERSION,
        features=tfds.features.FeaturesDict(features),
        split_datasets=examples,
        **arguments,
    )


def _write(builder, data_dir, root, listing):
    names = [name for split in listing.values() for name, _ in split]
    needed = sum((root / name).stat().st_size for name in names)
    free = shutil.disk_usage(data_dir).free
    if free < 1.05 * needed:
        raise OSError(
            f"The records of {root} need about {needed / 1e9:,.2f} GB of disk. "
            f"Received: {free / 1e9:,.2f} GB free in {str(data_dir)!r}"
        )
    logging.info("writing %d images of %s to %s", len(names), root, builder.data_dir)
    prepare(builder)
