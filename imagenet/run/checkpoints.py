"""Checkpoints of a run: the model, the optimizer with its state, the step.

The step says where the run stands in the data, since the batch of every step follows
from the settings. TensorFlow writes temporary files and names a checkpoint last, so one
that was killed or ran out of disk leaves the one before.
"""

import os
import pathlib
import secrets
import shutil
import tempfile

import tensorflow as tf

from imagenet.run.config import RunConfig
from imagenet.run.devices import Devices


class Checkpoints:
    """Saves and restores a run's step and other parts; all processes save together."""

    def __init__(self, config: RunConfig, devices: Devices, step, **parts):
        self._step = step
        self._folder = pathlib.Path(config.model_dir) / "checkpoints"
        self._size = sum(size_of(part) for part in parts.values())
        self._checkpoint = tf.train.Checkpoint(step=step, **parts)
        self._is_chief = devices.is_chief
        folder = self._folder
        if not self._is_chief:
            # Written, for some values lie on all processes, and thrown away.
            name = f"imagenet_worker_{os.getpid()}_{secrets.token_hex(4)}"
            folder = pathlib.Path(tempfile.gettempdir()) / name
        self._keep = config.keep_checkpoints if self._is_chief else 1
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), self._keep, checkpoint_name="step"
        )

    def check_room(self) -> None:
        """Raises a ValueError unless the disk has room for all that a run keeps."""
        # A new one is whole before the oldest goes.
        there = len(self._manager.checkpoints)
        wanted = self._keep + self._is_chief - min(there, self._keep)
        folder = pathlib.Path(self._manager.directory)
        free = shutil.disk_usage(existing_folder(folder)).free
        if free < wanted * self._size:
            raise ValueError(
                f"{folder} must have room for {wanted} more checkpoints of "
                f"{self._size / 1e9:.2f} GB; free some, keep fewer (keep_checkpoints), "
                "or, for what a worker throws away again, set TMPDIR. Received: "
                f"{free / 1e9:.2f} GB free"
            )

    def drop_unfinished(self) -> None:
        """Removes what a killed process had begun to write: gigabytes of no use."""
        for path in self._folder.glob("*_temp"):
            shutil.rmtree(path, ignore_errors=True)

    def restore(self) -> int:
        """Goes on from the newest checkpoint; returns its step, 0 where there is none.

        Raises:
            ValueError: It is of another model or optimizer, damaged, or gone.
        """
        newest = newest_checkpoint(self._folder)
        if newest is None:
            return 0
        try:
            status = self._checkpoint.restore(newest)
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise ValueError(
                f"{newest} must be a whole checkpoint of this model and this "
                f"optimizer. Received: {first_line(error)}"
            ) from error
        return int(self._step.numpy())

    def save(self) -> None:
        """Writes a checkpoint of this step, unless there is one.

        Raises:
            OSError: The disk is full; older checkpoints stay.
        """
        step = int(self._step.numpy())
        newest = self._manager.latest_checkpoint
        if newest and newest.endswith(f"-{step}"):
            return
        try:
            self._manager.save(checkpoint_number=step)
        except (tf.errors.ResourceExhaustedError, tf.errors.UnknownError) as error:
            raise OSError(
                f"the checkpoint of step {step} could not be written to "
                f"{self._manager.directory}; older ones are as they were. "
                f"Received: {first_line(error)}"
            ) from error
        finally:
            if not self._is_chief:
                shutil.rmtree(self._manager.directory, ignore_errors=True)


def newest_checkpoint(folder: pathlib.Path) -> str | None:
    """The newest checkpoint in a folder, None where none was ever saved.

    Raises:
        ValueError: Its files are gone: to begin anew would drop the run's curves.
    """
    state = tf.train.get_checkpoint_state(str(folder))
    if state is None or not state.model_checkpoint_path:
        return None
    newest = state.model_checkpoint_path
    if not pathlib.Path(f"{newest}.index").is_file():
        others = ", ".join(sorted(path.stem for path in folder.glob("*.index")))
        raise ValueError(
            f"{folder} must hold the files of its newest checkpoint. Received: a "
            f"folder without {pathlib.Path(newest).name}.index. Bring it back; or "
            "name another one of the folder in its file `checkpoint` "
            f"(there are: {others or 'none'}); or begin in another model_dir"
        )
    return newest


def existing_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder itself, or the first above it that there is."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def size_of(part) -> int:
    """Bytes of the variables of a model or an optimizer."""
    tensors = [variable.value for variable in part.variables]
    return sum(t.shape.num_elements() * t.dtype.size for t in tensors)


def first_line(error: Exception) -> str:
    """For a message; TensorFlow's have more lines."""
    return str(error).strip().split("\n")[0][:300]
