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
from tests.imagenet.small_runs import contents, settings, train


@pytest.fixture(scope="module")
def made(data_dir, tmp_path_factory):
    """The folder of a run that has ended, with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    train(data_dir, folder, checkpoint_every=2, keep_checkpoints=2)
    return folder


@pytest.fixture
def ended(made, tmp_path):
    """A copy."""
    return shutil.copytree(made, tmp_path / "ended")


def test_a_damaged_checkpoint(data_dir, ended):
    (data,) = (ended / "checkpoints").glob("step-6.data*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"step-6 must be a whole checkpoint"):
        train(data_dir, ended, train_steps=8)


def test_no_room(data_dir, ended, tmp_path, disk_of):
    disk_of(1000)
    with pytest.raises(ValueError, match="room for 3 more checkpoints"):
        train(data_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # A finished run needs none.
    assert train(data_dir, ended).evaluate()["images"] == 10


def test_a_checkpoint_that_is_gone(data_dir, ended):
    (ended / "checkpoints" / "step-6.index").unlink()
    before = contents(ended)
    with pytest.raises(ValueError, match=r"without step-6.index.*are: step-4\)"):
        train(data_dir, ended, checkpoint_every=2, train_steps=8)
    assert contents(ended) == before


def test_all_checkpoints_of_a_finished_run_are_gone(data_dir, ended):
    shutil.rmtree(ended / "checkpoints")
    before = contents(ended)
    for steps in (6, 8):
        with pytest.raises(ValueError, match="must have the checkpoints of its"):
            train(data_dir, ended, train_steps=steps)
    assert contents(ended) == before


def test_what_a_killed_process_had_begun_to_write_goes(data_dir, tmp_path):
    train(data_dir, tmp_path, until=2)
    begun = tmp_path / "checkpoints" / "step-9_temp"
    begun.mkdir()
    (begun / "part-0").write_bytes(b"begun")
    assert train(data_dir, tmp_path).step == 6
    assert not begun.exists()


def test_only_so_many_checkpoints_stay(data_dir, tmp_path):
    changes = {"checkpoint_every": 1, "steps_per_loop": 1}
    for keep, until, expected in ((3, 4, "234"), (1, 6, "6")):
        train(data_dir, tmp_path, until, keep_checkpoints=keep, **changes)
        found = sorted(path.stem for path in tmp_path.glob("checkpoints/*.index"))
        assert found == [f"step-{n}" for n in expected]


def test_another_process_trains_there(data_dir, tmp_path):
    train(data_dir, tmp_path, until=2)
    before = contents(tmp_path)
    with exclusive_lock(tmp_path / LOCK_FILE):
        with pytest.raises(ValueError, match="which one is training in"):
            train(data_dir, tmp_path)
        assert contents(tmp_path) == before
    assert train(data_dir, tmp_path).step == 6


def test_a_full_disk_leaves_the_checkpoint_before(data_dir, tmp_path, monkeypatch):
    run = settings(data_dir, tmp_path, checkpoint_every=2)
    training = Training(run, devices_of(run), open_images(run))
    save = training._checkpoints._manager.save

    def full(checkpoint_number):
        if checkpoint_number == 4:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left")
        return save(checkpoint_number=checkpoint_number)

    monkeypatch.setattr(training._checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="step 4 could not .*Received: No space left$"):
        training.train()
    again = Training(run, devices_of(run), open_images(run))
    assert again.step == 2
    again.train()
    steps = [row["step"] for row in read_csv(tmp_path / "train.csv")]
    assert steps == [1, 2, 3, 4, 5, 6]
