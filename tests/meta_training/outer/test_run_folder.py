"""The folder of a run: damaged checkpoints, locks and full disks."""

import fcntl
import io
import os

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import Config, fresh_weights, load_weights, save_weights
from learned_optimizer.utils.arrays import arrays_from_npz
from learned_optimizer.utils.csv_log import read_csv
from meta_training.outer.run_folder import LOCK, TrainingLog
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from tests.arrays import assert_equal
from tests.event_files import shown_curve
from tests.meta_training.outer.tiny_runs import TINY, Standing

OF_MORE = {"trajectories/values": np.zeros(3)}


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
            lambda whole: npz_of(arrays_from_npz(whole, "whole") | OF_MORE),
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
    for found in (resumed, saved):
        assert_equal(found.meta_parameters, last["values"])


def test_a_run_goes_on_with_its_own_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(fresh_weights(seed=0), "start.npz")
    config = preset("released", **{**TINY, "init_weights": "start.npz"})
    Trainer(config, "run", Standing()).train(until=2)
    # The file is replaced by one of as many numbers.
    save_weights(fresh_weights(Config(max_log_learning_rate=5.0), seed=0), "start.npz")
    message = "the architecture that the run in .*run. began with"
    with pytest.raises(ValueError, match=message):
        Trainer(config, "run", Standing())


def test_a_run_killed_before_its_first_checkpoint_starts_its_files_anew(tmp_path):
    def first_figures(score):
        log = TrainingLog(tmp_path, 0, 5)
        log.validation(0, {"score": score})
        log.row(0, {"loss": score, "cut_off": 0.0})
        log.validation(1, {"score": score - 1})
        return log

    first_figures(3.0).close()
    first_figures(7.0).close()
    assert read_csv(tmp_path / "validation.csv") == [
        {"outer_step": 0, "score": 7.0},
        {"outer_step": 1, "score": 6.0},
    ]
    # From the checkpoint after one step on, what was validated there stays.
    TrainingLog(tmp_path, 1, 5).close()
    rows = read_csv(tmp_path / "validation.csv")
    assert [row["outer_step"] for row in rows] == [0, 1]
    row = {"outer_step": 0, "loss": 7.0, "cut_off": 0}
    assert read_csv(tmp_path / "train.csv") == [row]


def test_tensorboard_forgets_the_steps_that_are_done_again(tmp_path):
    def log_from(outer_step, rows, validations):
        log = TrainingLog(tmp_path, outer_step, 5)
        for step, loss in rows.items():
            log.row(step, {"loss": loss, "cut_off": 0.0})
        for step, score in validations.items():
            log.validation(step, {"score": score})
        log.close()

    log_from(0, {0: 9.0}, {0: 9.0})
    log_from(0, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, {0: 1.0, 2: 2.0, 4: 3.0})
    log_from(2, {2: 13.0}, {3: 12.0})
    found = shown_curve(tmp_path / "tensorboard", "loss")
    assert found == [(0, 1.0), (1, 2.0), (2, 13.0)]
    # What the checkpoint led to was validated before it was written.
    found = shown_curve(tmp_path / "tensorboard", "validation/score")
    assert found == [(0, 1.0), (2, 2.0), (3, 12.0)]


def test_a_full_disk_under_the_log_says_what_it_means(tmp_path, monkeypatch):
    config = preset("default", **TINY)
    trainer = Trainer(config, tmp_path, Standing())

    def full(*_, **__):
        if trainer.outer_step > 2:
            raise tf.errors.OutOfRangeError(None, None, "No space left on device")

    monkeypatch.setattr("learned_optimizer.utils.run_log.tf.summary.scalar", full)
    message = "figures of the run could not be written: .*No space.*is complete"
    with pytest.raises(OSError, match=message):
        trainer.train()
    monkeypatch.undo()
    assert Trainer(config, tmp_path, Standing()).outer_step == 2
