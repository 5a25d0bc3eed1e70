"""The folder of a run: damaged checkpoints, locks and full disks."""

import fcntl
import io
import os

import numpy as np
import pytest

from learned_optimizer import Config, fresh_weights, load_weights, save_weights
from learned_optimizer.utils.arrays import arrays_from_npz
from meta_training.outer.run_folder import LOCK
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from tests.meta_training.outer.tiny_runs import TINY, Standing


def npz_of(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda whole: whole[: len(whole) // 2], "whole npz archive"),
        (lambda whole: b"", "whole npz archive"),
        (lambda whole: b"not an archive", "whole npz archive"),
        (
            lambda whole: npz_of({"a": np.zeros(3)}),
            "of these tasks and settings. Received: .*: outer_step is missing",
        ),
        (
            lambda whole: npz_of(
                arrays_from_npz(whole, "whole") | {"trajectories/values": np.zeros(3)}
            ),
            r"trajectories/values: \(3,\) there, \(2, 2\) wanted",
        ),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, damage, message):
    config = preset("default", **TINY)
    Trainer(config, tmp_path).save()
    path = tmp_path / "checkpoint.npz"
    whole = path.read_bytes()
    assert Trainer(config, tmp_path).outer_step == 0
    path.write_bytes(damage(whole))
    with pytest.raises(ValueError, match=f"checkpoint.npz.*{message}"):
        Trainer(config, tmp_path)
    # It is left for a person to look at, and a whole one in its place goes on.
    assert path.read_bytes() == damage(whole)
    path.write_bytes(whole)
    Trainer(config, tmp_path)


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path):
    trainer = Trainer(preset("default", **TINY), tmp_path)
    with open(tmp_path / LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="by no other process.*one is training"):
            trainer.train(1)
        assert not (tmp_path / "train.csv").exists()
    # Once the other has ended, the lock is free.
    trainer.train(1)
    assert trainer.outer_step == 1


def test_a_full_disk_leaves_the_last_checkpoint_of_a_run(tmp_path, monkeypatch):
    config = preset("default", **TINY)
    trainer = Trainer(config, tmp_path, Standing())
    fsync = os.fsync
    last = {}

    def full_after_two_steps(descriptor):
        if trainer.outer_step > 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)
        last.update(outer_step=trainer.outer_step, values=trainer.meta_parameters)

    monkeypatch.setattr(
        "learned_optimizer.utils.atomic_write.os.fsync", full_after_two_steps
    )
    message = "outer step 4 could not be saved.*No space left.*checkpoint is complete"
    with pytest.raises(OSError, match=message) as raised:
        trainer.train()
    assert raised.value.errno == 28
    assert [path.name for path in tmp_path.glob(".*")] == [LOCK]
    monkeypatch.undo()
    resumed = Trainer(config, tmp_path, Standing())
    assert resumed.outer_step == last["outer_step"] == 2
    saved = load_weights(tmp_path / "weights.npz")
    for name, value in last["values"].items():
        np.testing.assert_array_equal(resumed.meta_parameters[name], value)
        np.testing.assert_array_equal(saved.meta_parameters[name], value)


def test_a_run_goes_on_with_its_own_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(fresh_weights(seed=0), "start.npz")
    config = preset("released", **{**TINY, "init_weights": "start.npz"})
    Trainer(config, "run", Standing()).train(until=2)
    # The file is replaced by one of as many numbers.
    save_weights(fresh_weights(Config(max_log_learning_rate=5.0), seed=0), "start.npz")
    with pytest.raises(
        ValueError, match="the architecture that the run in .*run. began with"
    ):
        Trainer(config, "run", Standing())
