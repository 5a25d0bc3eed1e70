"""What is left of a run whose checkpoints are damaged, gone, or fill the disk."""

import shutil

import pytest
import tensorflow as tf

from imagenet.input.data import open_images
from imagenet.run.config import LOCK_FILE
from imagenet.run.devices import devices_of
from imagenet.run.training import Training
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from tests.imagenet.small_runs import settings, train


class TestCheckpointsInAFolder:
    """What is there of a run that goes on, and what is not."""

    def test_a_damaged_checkpoint(self, data_dir, tmp_path):
        train(data_dir, tmp_path / "run")
        (data,) = (tmp_path / "run" / "checkpoints").glob("step-6.data*")
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"step-6 must be a whole checkpoint"):
            train(data_dir, tmp_path / "run", train_steps=8)

    def test_no_room(self, data_dir, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            "imagenet.run.checkpoints.shutil.disk_usage",
            lambda path: usage._replace(free=1000),
        )
        with pytest.raises(ValueError, match="room for 3 more checkpoints"):
            train(data_dir, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_finished_run_needs_no_room(self, data_dir, tmp_path, monkeypatch):
        train(data_dir, tmp_path / "run")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            "imagenet.run.checkpoints.shutil.disk_usage",
            lambda path: usage._replace(free=1000),
        )
        assert train(data_dir, tmp_path / "run").evaluate()["images"] == 10

    def test_a_checkpoint_that_is_gone(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, checkpoint_every=2)
        (folder / "checkpoints" / "step-6.index").unlink()
        before = (folder / "train.csv").read_bytes()
        with pytest.raises(ValueError, match=r"without step-6.index.*are: step-4\)"):
            train(data_dir, folder, checkpoint_every=2, train_steps=8)
        assert (folder / "train.csv").read_bytes() == before

    def test_all_checkpoints_of_a_finished_run_are_gone(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder)
        shutil.rmtree(folder / "checkpoints")
        names = ("train.csv", "eval.csv", "model.keras")
        before = [(folder / name).read_bytes() for name in names]
        for steps in (6, 8):
            with pytest.raises(ValueError, match="must have the checkpoints of its"):
                train(data_dir, folder, train_steps=steps)
        assert [(folder / name).read_bytes() for name in names] == before

    def test_what_a_killed_process_had_begun_to_write_goes(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, until=2)
        (folder / "checkpoints" / "step-9_temp").mkdir()
        (folder / "checkpoints" / "step-9_temp" / "part-0").write_bytes(b"begun")
        assert train(data_dir, folder).step == 6
        assert not list((folder / "checkpoints").glob("*_temp"))

    def test_only_so_many_checkpoints_stay(self, data_dir, tmp_path):
        changes = {"checkpoint_every": 1, "steps_per_loop": 1}
        for keep, until, expected in ((3, 4, "234"), (1, 6, "6")):
            train(data_dir, tmp_path / "run", until, keep_checkpoints=keep, **changes)
            found = (tmp_path / "run" / "checkpoints").glob("*.index")
            assert sorted(path.stem for path in found) == [
                f"step-{n}" for n in expected
            ]

    def test_another_process_trains_there(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, until=2)
        before = (folder / "train.csv").read_bytes()
        with exclusive_lock(folder / LOCK_FILE):
            with pytest.raises(ValueError, match="which one is training in"):
                train(data_dir, folder)
            assert (folder / "train.csv").read_bytes() == before
        assert train(data_dir, folder).step == 6


def test_a_full_disk_leaves_the_checkpoint_before(data_dir, tmp_path, monkeypatch):
    run = settings(data_dir, tmp_path / "run", checkpoint_every=2)
    training = Training(run, devices_of(run), open_images(run))
    save = training._checkpoints._manager.save

    def full(checkpoint_number):
        if checkpoint_number == 4:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left")
        return save(checkpoint_number=checkpoint_number)

    monkeypatch.setattr(training._checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="checkpoint of step 4 could not be written"):
        training.train()
    again = Training(run, devices_of(run), open_images(run))
    assert again.step == 2
    again.train()
    assert again.step == 6
    assert [row["step"] for row in read_csv(tmp_path / "run" / "train.csv")] == [
        *range(1, 7)
    ]
