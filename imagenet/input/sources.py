"""Where ImageNet comes from: TFDS's own builder, on real files or on generated ones.

Everything that can be wrong with the files and can be found out quickly is found out
here, before anything long begins.
"""

import contextlib
import re
import shutil
import tarfile

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from imagenet.input.preparing import prepare
from imagenet.synthetic.generated import (
    NAME,
    SETTINGS_FILE,
    GeneratedSettings,
    generated_folder,
    make_generated,
)
from learned_optimizer.utils.exclusive_lock import exclusive_lock

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SPLITS = ("train", "validation")
# The newest first; what an older TFDS prepared is still good.
_VERSIONS = ("5.1.0", "5.0.0")
# A tar file ends with two blocks of zeros.
_TAR_BLOCK = 512
# Bytes that TFRecord puts around each record: its length and two checksums.
_RECORD_FRAME = 16
_LOCK_FILE = ".imagenet2012.lock"


def open_generated(data_dir, settings: GeneratedSettings):
    """TFDS's builder of the generated set, which is made when missing.

    Raises:
        ValueError, OSError: see `make_generated`; or the set is damaged.
    """
    if "://" in str(data_dir):
        raise ValueError(
            "--data_dir of generated images must be a folder of this machine. "
            f"Received: {str(data_dir)!r}"
        )
    make_generated(data_dir, settings)
    return _open_prepared(data_dir, generated_folder(data_dir).name)


def open_imagenet(data_dir):
    """TFDS's builder of the real ImageNet, prepared from its tar files when it is not.

    Args:
        data_dir: TFDS's folder. The tar files are looked for where TFDS does, in
            `downloads/manual` of it.

    Raises:
        ValueError: there are neither records nor tar files, one of the tar files is
            missing or cut off, the records are damaged, or they are generated ones.
        OSError: the disk has not enough room.
    """
    data_dir = epath.Path(data_dir)
    if not data_dir.is_dir():
        raise ValueError(
            f"--data_dir must be a folder with {NAME} or its tar files. Received: "
            f"{str(data_dir)!r}, where there is none"
        )
    for version in _VERSIONS:
        folder = data_dir / NAME / version
        if folder.exists():
            if (folder / SETTINGS_FILE).exists():
                raise ValueError(
                    "--data_dir must hold the real ImageNet. Received: "
                    f"{str(folder)!r}, which holds generated images. Read them with "
                    "--dataset=generated, or name another --data_dir"
                )
            return _open_prepared(data_dir, version)
    _check_tars(data_dir)
    _prepare(data_dir)
    return _open_prepared(data_dir, _VERSIONS[0])


def _builder(data_dir, version):
    return tfds.builder(f"{NAME}:{version}", data_dir=str(data_dir), try_gcs=False)


def _open_prepared(data_dir, version):
    """The builder of records that are there.

    Raises:
        ValueError: some are not.
    """
    folder = epath.Path(data_dir) / NAME / version
    advice = "Delete that folder to have it made again"
    try:
        builder = _builder(data_dir, version)
        prepared = builder.is_prepared()
    except Exception as error:
        # Metadata that is no JSON raises one of many, by where it breaks off.
        raise ValueError(
            f"{str(folder)!r} must hold the metadata that TFDS writes. Received: "
            f"{_one_line(error)}. {advice}"
        ) from error
    if not prepared:
        raise ValueError(
            f"{str(folder)!r} must hold a whole TFDS set. Received: a folder without "
            f"its metadata. {advice}"
        )
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise ValueError(
            f"{str(folder)!r} must hold TFRecord files, TFDS's default. Received: "
            f"{file_format!r}. Prepare them again in another --data_dir"
        )
    for name in SPLITS:
        if name not in builder.info.splits or not builder.info.splits[name]:
            raise ValueError(
                f"{str(folder)!r} must hold the splits train and validation. Received: "
                f"{sorted(builder.info.splits)}. {advice}"
            )
        split = builder.info.splits[name]
        missing = [path.name for path in split.filepaths if not path.exists()]
        if missing:
            raise ValueError(
                f"{str(folder)!r} must hold all {len(split.filepaths)} files of "
                f"{name!r}. Missing: {len(missing)}, the first {missing[0]!r}. {advice}"
            )
        there = sum(path.stat().length for path in split.filepaths)
        wanted = split.num_bytes + _RECORD_FRAME * split.num_examples
        if there < wanted:
            raise ValueError(
                f"{str(folder)!r} must hold {wanted:,} bytes of {name!r}. Received: "
                f"{there:,}: a file is cut off. {advice}"
            )
    return builder


def _check_tars(data_dir):
    """Looks at both tar files, but not at all of their content."""
    manual = data_dir / "downloads" / "manual"
    tars = {name: manual / name for name in (TRAIN_TAR, VALIDATION_TAR)}
    missing = [name for name, path in tars.items() if not path.exists()]
    if len(missing) == len(tars):
        raise ValueError(
            f"--data_dir must hold {NAME}, or the two files {TRAIN_TAR} and "
            f"{VALIDATION_TAR} in {str(manual)!r} (from image-net.org, after "
            "registration). Received: a folder without any of these. Without ImageNet: "
            "--dataset=generated"
        )
    if missing:
        raise ValueError(
            f"{str(manual)!r} must hold both {TRAIN_TAR} and {VALIDATION_TAR}. "
            f"Missing: {missing[0]}. Download it, too"
        )
    for name, path in tars.items():
        _check_tar(path, r"n\d{8}\.tar" if name == TRAIN_TAR else r".*\.JPEG")


def _check_room(data_dir, manual_dir):
    needed = sum(
        (manual_dir / name).stat().length for name in (TRAIN_TAR, VALIDATION_TAR)
    )
    if shutil.disk_usage(data_dir).free < needed:
        raise OSError(
            f"Preparing {NAME} needs about {needed / 1e9:,.1f} GB of disk. Received: "
            f"{shutil.disk_usage(data_dir).free / 1e9:,.1f} GB free in "
            f"{str(data_dir)!r}"
        )


def _check_tar(path, member_pattern):
    """Whether a tar file is whole, as far as its headers and its end tell."""

    def fail(what):
        raise ValueError(
            f"{str(path)!r} must be a whole tar file of ImageNet 2012. Received: "
            f"{what}. Download it again"
        )

    size = path.stat().length
    with path.open("rb") as file:
        if size % _TAR_BLOCK or size < 3 * _TAR_BLOCK:
            fail(f"{size:,} bytes, which are not whole blocks: it is cut off")
        file.seek(size - 2 * _TAR_BLOCK)
        if any(file.read()):
            fail("a file without the end mark of tar files: it is cut off")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                first = tar.next()
        except tarfile.TarError as error:
            fail(str(error))
    if first is None or not re.fullmatch(member_pattern, first.name):
        fail(f"a tar file that begins with {first and first.name!r}")


def _prepare(data_dir):
    """Has TFDS write its records from the tar files; other processes wait."""
    builder = _builder(data_dir, _VERSIONS[0])
    manual_dir = data_dir / "downloads" / "manual"
    with contextlib.ExitStack() as stack:
        # A bucket has no locks and no end.
        if "://" not in str(data_dir):
            held = stack.enter_context(exclusive_lock(data_dir / _LOCK_FILE))
            if (data_dir / NAME / _VERSIONS[0]).exists():
                return
            if held:
                _drop_leftovers(data_dir)
            _check_room(data_dir, manual_dir)
        try:
            prepare(builder, manual_dir)
        except (tarfile.TarError, RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"The tar files in {str(manual_dir)!r} must be those of "
                f"ImageNet 2012. Received: {_one_line(error)}. Download them again"
            ) from error


def _drop_leftovers(data_dir):
    """What TFDS leaves when it is killed: up to as much as the whole set."""
    for leftover in (data_dir / NAME).glob("incomplete.*"):
        logging.info("removing %s, which a killed process left", leftover)
        leftover.rmtree(missing_ok=True)


def _one_line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
