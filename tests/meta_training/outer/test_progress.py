"""The counters of a run."""

from learned_optimizer import load_weights
from learned_optimizer.utils.arrays import load_arrays, save_arrays
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from tests.meta_training.outer.tiny_runs import TINY


def test_the_card_counts_the_time_of_the_cores(tmp_path, monkeypatch):
    clock = {"now": 1000.0}
    monkeypatch.setattr("time.process_time", lambda: clock["now"])
    config = preset("default", **TINY)

    def cpu_hours(seconds):
        trainer = Trainer(config, tmp_path)
        clock["now"] += seconds
        trainer.save()
        return load_weights(tmp_path / "weights.npz").card["cpu_hours"]

    assert cpu_hours(3600) == 1.0
    # What this process does between two sittings is not the run's.
    clock["now"] += 500.0
    assert cpu_hours(900) == 1.25
    # A checkpoint from before it was counted can be gone on from; the sum is unknown.
    arrays = load_arrays(tmp_path / "checkpoint.npz")
    del arrays["cpu_seconds"]
    save_arrays(tmp_path / "checkpoint.npz", arrays)
    assert cpu_hours(900) is None
