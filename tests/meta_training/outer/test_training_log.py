"""What a run writes as it trains, also when it is killed or the disk is full."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)

from learned_optimizer.utils.csv_log import read_csv
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.outer.training_log import TrainingLog
from tests.meta_training.outer.tiny_runs import TINY, Standing


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
    assert [row["outer_step"] for row in read_csv(tmp_path / "validation.csv")] == [
        *(0, 1)
    ]
    assert read_csv(tmp_path / "train.csv") == [
        {"outer_step": 0, "loss": 7.0, "cut_off": 0}
    ]


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
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()

    def curve(tag):
        return [
            (event.step, float(tf.make_ndarray(event.tensor_proto)))
            for event in events.Tensors(tag)
        ]

    assert curve("loss") == [(0, 1.0), (1, 2.0), (2, 13.0)]
    # What the checkpoint led to was validated before it was written.
    assert curve("validation/score") == [(0, 1.0), (2, 2.0), (3, 12.0)]


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
