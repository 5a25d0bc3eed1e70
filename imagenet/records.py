"""TFDS writes the records of a set: quietly, and one process at a time."""

import contextlib
import sys
from collections.abc import Callable

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from learned_optimizer.utils.exclusive_lock import exclusive_lock


def tfds_builder(name: str, data_dir, **arguments):
    """TFDS's builder of a name.

    Raises:
        ValueError: There is none of that name, or the metadata of its records are
            damaged.
    """
    try:
        return tfds.builder(name, data_dir=str(data_dir), try_gcs=False, **arguments)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            "--dataset must be generated, imagenet2012, folder:PATH, or a data set of "
            "TFDS, by a name of https://www.tensorflow.org/datasets/catalog or of "
            f"records in --data_dir. Received: {name!r}, which is neither known to "
            f"TFDS {tfds.__version__} nor in {str(data_dir)!r}"
        ) from error
    except Exception as error:
        # Metadata that is no JSON raises one of many, by where it breaks off.
        raise ValueError(
            f"--dataset must be a data set that TFDS can open in {str(data_dir)!r}. "
            f"Received: {name!r}, {one_line(error)}. If its metadata are damaged, "
            "delete its folder to have it made again"
        ) from error


def prepare_alone(builder, data_dir, write: Callable[[], None]) -> None:
    """Has the records of a builder written, unless they are there; others wait."""
    folder = epath.Path(builder.data_dir)
    with contextlib.ExitStack() as stack:
        # A bucket has no locks and no end.
        if "://" not in str(data_dir):
            epath.Path(data_dir).mkdir(parents=True, exist_ok=True)
            path = epath.Path(data_dir) / f".{builder.name}.lock"
            held = stack.enter_context(exclusive_lock(path))
            if held and folder.parent.exists():
                # What TFDS leaves when it is killed: up to as much as the whole set.
                for leftover in folder.parent.glob("incomplete.*"):
                    logging.info("removing %s, which a killed process left", leftover)
                    leftover.rmtree(missing_ok=True)
        if not folder.exists():
            write()


def prepare(builder, manual_dir=None) -> None:
    """Has a builder write its records.

    Raises:
        OSError: They cannot be written.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False, manual_dir=manual_dir)
    # TFDS announces itself on standard output, which belongs to the caller's results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            builder.download_and_prepare(download_config=config)
        except tf.errors.OpError as error:
            raise OSError(
                f"Records must be written to {builder.data_dir!r}. "
                f"Received: {' '.join(error.message.split())}"
            ) from error


def one_line(error: Exception) -> str:
    """An error as one line for a message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
