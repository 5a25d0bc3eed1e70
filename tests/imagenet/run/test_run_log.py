"""What a run leaves of its figures."""

from imagenet.run.config import TRAIN_COLUMNS
from imagenet.run.run_log import RunLog
from tests.event_files import shown_curve


def test_tensorboard_forgets_the_steps_that_are_done_again(tmp_path):
    def log(step, rows):
        run = RunLog(tmp_path, step, 6, is_learned=False)
        run.loop([dict.fromkeys(TRAIN_COLUMNS, 1.0) | row for row in rows])
        run.close()

    log(0, [{"step": step, "loss": step} for step in (1, 2, 3, 4)])
    log(2, [{"step": step, "loss": 10 * step} for step in (3, 4, 5)])
    found = shown_curve(tmp_path / "tensorboard", "train/loss")
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]
