"""ImageNet 2012: TFDS's own builder on the two tar files that it does not download.

Everything that can be wrong with the files and can be found out quickly is found out
here, before anything long begins.
"""

import re
import shutil
import tarfile

from etils import epath

from imagenet.records import one_line, prepare, prepare_alone, tfds_builder
from imagenet.synthetic.generated import NAME, SETTINGS_FILE

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# The newest first; what an older TFDS prepared is still good.
_VERSIONS = ("5.1.0", "5.0.0")
# A tar file ends with two blocks of zeros.
_TAR_BLOCK = 512


def imagenet_builder(data_dir):
    """TFDS's builder of the real ImageNet, prepared from its tar files when it is not.

    They are looked for where TFDS does, in `downloads/manual` of `data_dir`.

    Raises:
        ValueError: There are neither records nor tar files, one of the tar files is
            missing or cut off, or the records are generated ones.
        OSError: The disk has not enough room.
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
            return tfds_builder(f"{NAME}:{version}", data_dir)
    _check_tars(data_dir)
    builder = tfds_builder(f"{NAME}:{_VERSIONS[0]}", data_dir)
    prepare_alone(builder, data_dir, lambda: _prepare(builder, data_dir))
    return tfds_builder(f"{NAME}:{_VERSIONS[0]}", data_dir)


def _check_tars(data_dir):
    """Looks at both tar files, but not at all of their content."""
    manual = data_dir / "downloads" / "manual"
    tars = {name: manual / name for name in (TRAIN_TAR, VALIDATION_TAR)}
    missing = [name for name, path in tars.items() if not path.exists()]
    if missing:
        raise ValueError(
            f"--data_dir must hold {NAME}, or the two files {TRAIN_TAR} and "
            f"{VALIDATION_TAR} in {str(manual)!r} (from image-net.org, after "
            f"registration). Received: a folder without {' and '.join(missing)}. "
            "Without ImageNet: --dataset=generated"
        )
    for name, path in tars.items():
        _check_tar(path, r"n\d{8}\.tar" if name == TRAIN_TAR else r".*\.JPEG")


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


def _prepare(builder, data_dir):
    manual = data_dir / "downloads" / "manual"
    if "://" not in str(data_dir):
        needed = sum(
            (manual / name).stat().length for name in (TRAIN_TAR, VALIDATION_TAR)
        )
        free = shutil.disk_usage(data_dir).free
        if free < needed:
            raise OSError(
                f"Preparing {NAME} needs about {needed / 1e9:,.1f} GB of disk. "
                f"Received: {free / 1e9:,.1f} GB free in {str(data_dir)!r}"
            )
    try:
        prepare(builder, manual)
    except (tarfile.TarError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The tar files in {str(manual)!r} must be those of ImageNet 2012. "
            f"Received: {one_line(error)}. Download them again"
        ) from error
