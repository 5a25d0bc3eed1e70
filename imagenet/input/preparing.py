"""TFDS writes the records of a set: without network, quietly, errors in plain words."""

import contextlib
import sys


def prepare(builder, manual_dir=None) -> None:
    """Has a builder write its records.

    Args:
        builder: of TFDS.
        manual_dir: where files are that the builder does not download.

    Raises:
        OSError: they cannot be written.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

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
