"""Checkpoints of a run: the model, the optimizer with its state, the step.

The step says where the run stands in the data, since the batch of every step follows
from the settings. TensorFlow writes the files aside and names a checkpoint last, so one
that was killed or ran out of disk leaves the one before.
"""

import pathlib
import shutil
import tempfile

import tensorflow as tf

from imagenet.devices import Devices
from imagenet.settings import TrainingSettings


class Checkpoints:
    """Saves and restores.

    Args:
        settings: Of the run.
        devices: Of the run. All its processes must save together: some values lie
            on all of them.
        step: Variable that counts the steps.
        **parts: What else is saved, by name.

    Raises:
        ValueError: The disk has no room for them.
    """

    def __init__(self, settings: TrainingSettings, devices: Devices, step, **parts):
        self._step = step
        self._model_dir = pathlib.Path(settings.model_dir)
        self._checkpoint = tf.train.Checkpoint(step=step, **parts)
        folder = self._model_dir / "checkpoints"
        self._aside = None
        if not devices.is_chief:
            # Written, since all must take part, and thrown away.
            self._aside = tempfile.TemporaryDirectory(prefix="imagenet_worker_")
            folder = pathlib.Path(self._aside.name)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint,
            str(folder),
            max_to_keep=settings.keep_checkpoints if devices.is_chief else 1,
            checkpoint_name="step",
        )
        if devices.is_chief:
            self._check_room(settings, parts)

    def _check_room(self, settings, parts):
        there = len(self._manager.checkpoints)
        # A new one is whole before the oldest goes.
        wanted = settings.keep_checkpoints + 1 - min(there, settings.keep_checkpoints)
        each = sum(size_of(part) for part in parts.values())
        # The folder is made when all was checked.
        folder = self._model_dir.absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < wanted * each:
            raise ValueError(
                f"model_dir must have room for {wanted} more checkpoints of "
                f"{each / 1e9:.2f} GB; free some, or keep fewer (keep_checkpoints). "
                f"Received: {free / 1e9:.2f} GB free at {self._model_dir}"
            )

    def restore(self) -> int:
        """Goes on from the newest checkpoint, if there is one.

        Returns:
            The step of the checkpoint, 0 where there is none.

        Raises:
            ValueError: It is of another model or optimizer, or damaged.
        """
        newest = tf.train.latest_checkpoint(str(self._model_dir / "checkpoints"))
        if newest is None:
            return 0
        try:
            status = self._checkpoint.restore(newest)
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise ValueError(
                f"{newest} must be a whole checkpoint of this model and this "
                f"optimizer. Received: {_first_line(error)}"
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
                f"Received: {_first_line(error)}"
            ) from error


def size_of(part) -> int:
    """Bytes of the variables of a model or an optimizer."""
    tensors = [variable.value for variable in part.variables]
    return sum(t.shape.num_elements() * t.dtype.size for t in tensors)


def _first_line(error):
    return str(error).strip().split("\n")[0][:300]
