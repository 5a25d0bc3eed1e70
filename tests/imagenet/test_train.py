"""The command: what it refuses, what it says, how it ends."""

import pytest
import tensorflow as tf
from absl import logging
from absl.testing import flagsaver

from imagenet import train as train_module
from imagenet.run.run_log import RunLog
from learned_optimizer.utils.csv_log import read_csv
from tests.imagenet.small_runs import SMALL, contents, settings, train

NOT_GENERATED = {
    "dataset": "imagenet2012",
    **dict.fromkeys(("num_classes", "num_images", "num_validation_images")),
}


OF_EPOCHS = {"train_steps": None, "epochs": 1}
LEARNED = {"optimizer": "hierarchical_rnn"}


class Left(Exception):
    """The command ended, with a line and a status."""


@pytest.fixture
def main(monkeypatch, data_dir):
    """`python -m imagenet.train` in this process; it leaves by `Left`."""

    def leave(message, status):
        raise Left(f"{message} (status {status})")

    def run(model_dir, **flags):
        flags = {**SMALL, "data_dir": data_dir, "model_dir": str(model_dir), **flags}
        with flagsaver.flagsaver(**flags):
            train_module.main(["imagenet.train"])

    monkeypatch.setattr(train_module, "_leave", leave)
    was_parsed = train_module.FLAGS.is_parsed()
    train_module.FLAGS.mark_as_parsed()
    yield run
    if not was_parsed:
        train_module.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be .*above 0"),
        ({"warmup_steps": 7}, "7 steps of 6"),
        ({"train_steps": None, "epochs": 2.0, "warmup_steps": 11}, "11 steps of 10"),
        (NOT_GENERATED | OF_EPOCHS | {"warmup_steps": 10**6}, "of 160146"),
        (LEARNED | {"weights": "typo"}, "weights='typo'"),
        (
            LEARNED | {"weights": "released", "horizon": True},
            "needs weights with a nominal learning rate",
        ),
        ({"accumulation_steps": 3}, "batch_size must be a multiple"),
        ({"input_shards": 3}, "input_shards must be a multiple"),
        ({"num_classes": 1}, "num_classes must be .*2 or more"),
        ({"eval_only": True}, "--eval_only must find a checkpoint"),
        ({"model_dir": "/dev/null/run"}, "/dev/null cannot be written"),
    ],
)
def test_the_images_come_after_all_checks(main, tmp_path, monkeypatch, flags, message):
    """They may take hours to prepare."""

    def opened(settings):
        raise AssertionError("the images were opened")

    monkeypatch.setattr(train_module, "open_images", opened)
    with pytest.raises(Left, match=rf"(?s){message}.*\(status 1\)"):
        main(**{"model_dir": tmp_path / "run", **flags})
    assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run(main, tmp_path):
    settings("data", tmp_path / "run", seed=1).write_or_verify(tmp_path / "run")
    with pytest.raises(Left, match="go on with the settings of its run.*seed"):
        main(tmp_path / "run")
    main(tmp_path / "run", seed=1)


def test_another_backend_is_refused(main, tmp_path, monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    with pytest.raises(Left, match="must be 'tensorflow' here.*'jax'"):
        main(tmp_path / "run")


def test_one_thread_is_refused_where_it_would_corrupt_memory(
    main, tmp_path, monkeypatch
):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    threading = tf.config.threading
    monkeypatch.setattr(threading, "set_intra_op_parallelism_threads", lambda _: None)
    with pytest.raises(Left, match="TF_NUM_INTRAOP_THREADS=1.*Received: --threads=1"):
        main(tmp_path / "run", threads=1)


def test_no_imagenet(main, tmp_path):
    with pytest.raises(Left, match="no_such_folder"):
        main(tmp_path / "run", data_dir="no_such_folder", **NOT_GENERATED)
    assert not (tmp_path / "run").exists()


def test_a_command_that_was_put_right_runs(main, tmp_path):
    """What was started by mistake leaves no folder that refuses it."""
    typo = LEARNED | {"weights": "typo"}
    for wrong in (typo, {"input_shards": 3}, {"eval_only": True}):
        with pytest.raises(Left, match="status 1"):
            main(tmp_path / "run", train_steps=2, **wrong)
    main(tmp_path / "run", train_steps=2)
    assert len(read_csv(tmp_path / "run" / "train.csv")) == 2
    before = contents(tmp_path / "run")
    main(tmp_path / "run", train_steps=None, eval_only=True)
    assert contents(tmp_path / "run") == before


def test_a_full_disk_under_tensorboard_is_one_line(main, tmp_path, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left\nmore")

    monkeypatch.setattr(RunLog, "summarize", full)
    with pytest.raises(Left) as left:
        main(tmp_path / "run", train_steps=2)
    (line,) = str(left.value).splitlines()
    assert "figures of the run could not be written: No space left" in line
    assert "(status 1)" in line


def test_checkpoints_are_written_without_a_word(
    data_dir, tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO", logger="absl")
    train(data_dir, tmp_path / "said", until=2)
    assert "Sharding callback duration" in caplog.text
    caplog.clear()
    monkeypatch.setattr(logging.get_absl_logger(), "filters", [])
    with flagsaver.flagsaver():
        train_module.set_up_logging()
        train(data_dir, tmp_path / "quiet", until=2)
    assert "images a step" in caplog.text
    assert "Sharding" not in caplog.text
