"""Runs side by side end with what each ends with alone, to the last outer step."""

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.rule.config import Config
from meta_training.experiments import seeds_side_by_side
from meta_training.experiments.seeds_side_by_side import train_side_by_side
from meta_training.optimizers import (
    HierarchicalRule,
    fresh_trained,
    save_trained,
)
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.small_networks.perceptrons import Perceptron

SMALL = dict(
    task_set="side_by_side_bowls",
    block_size=2,
    min_window_steps=2,
    mean_window_steps=3.0,
    max_window_steps=5,
    mean_horizon=6.0,
    checkpoint_every=1,
    validate_every=0,
    outer_steps=3,
    objective_rows=4,
    parts=1,
    nominal=None,
)
SEEDS = (0, 5)


@register_task_set("side_by_side_bowls")
def _bowls():
    return [Bowl(5.0, noise_stdev=0.1), Bowl(1.0, noise_stdev=0.3)]


@register_task_set("side_by_side_network")
def _network():
    return [Bowl(5.0), Perceptron(3, (4,), 2, rows=8, batch_size=2)]


def configs_in(folder, **changes):
    """Settings of one level, quick to compile, with a start for each seed."""
    configs = []
    for seed in SEEDS:
        start = folder / f"start{seed}.npz"
        optimizer = HierarchicalRule(Config(level_sizes=(4,), gradient_timescales=2))
        save_trained(fresh_trained(optimizer, seed), start)
        settings = {**SMALL, "init_weights": str(start), **changes}
        configs.append(preset("default", seed=seed, **settings))
    return configs


def trained_alone(configs, folder):
    found = [Trainer(c, folder / f"alone{c.seed}").train() for c in configs]
    assert any(np.any(found[0][name] != found[1][name]) for name in found[0])
    return found


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-7, err_msg=name
        )


@pytest.mark.slow
def test_a_failure_ends_all_and_each_seed_then_ends_as_alone(tmp_path, monkeypatch):
    configs = configs_in(tmp_path)
    alone = trained_alone(configs, tmp_path)
    runs = [(config, tmp_path / f"beside{config.seed}") for config in configs]
    save = Trainer.save

    def failing_save(trainer):
        if trainer.config.seed == SEEDS[1] and trainer.outer_step == 2:
            raise OSError("no space left")
        save(trainer)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Trainer, "save", failing_save)
        train_side_by_side(runs)
    # The checkpoints that are left are of different outer steps.
    steps = [Trainer(*run).outer_step for run in runs]
    assert steps == [2, 1]
    for trainer, wanted in zip(train_side_by_side(runs), alone, strict=True):
        assert trainer.outer_step == 3
        assert_equal(trainer.meta_parameters, wanted)
        saved = load_weights(trainer.folder / "weights.npz")
        assert_equal(saved.meta_parameters, wanted)
    # Now there is nothing left to do.
    for trainer, wanted in zip(train_side_by_side(runs), alone, strict=True):
        assert_equal(trainer.meta_parameters, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 2, "task_set": "side_by_side_network"},
        {"estimator": "pes"},
        {"optimizer": "coordinatewise_rnn", "init_weights": None},
        {"init_weights": None},
    ],
    ids=["parts", "pes", "coordinatewise", "three_levels"],
)
def test_each_seed_ends_as_it_does_alone(tmp_path, changes, monkeypatch):
    configs = configs_in(tmp_path, **changes)
    alone = trained_alone(configs, tmp_path)
    runs = [(config, tmp_path / f"beside{config.seed}") for config in configs]
    meetings = []

    class Remembered(seeds_side_by_side._Meeting):
        def __init__(self):
            super().__init__()
            meetings.append(self)

    monkeypatch.setattr(seeds_side_by_side, "_Meeting", Remembered)
    for trainer, wanted in zip(train_side_by_side(runs), alone, strict=True):
        assert_equal(trainer.meta_parameters, wanted)
    # One program for all seeds, traced at the first of the outer steps.
    (meeting,) = meetings
    assert meeting._program.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ([{}, {"outer_steps": 4}], "other values of outer_steps"),
        ([{"cohorts": 2}, {"cohorts": 2}], "one cohort each"),
        ([], "one or more"),
    ],
)
def test_runs_that_cannot_share_a_program(tmp_path, changes, message):
    configs = [preset("default", **{**SMALL, **change}) for change in changes]
    with pytest.raises(ValueError, match=message):
        train_side_by_side([(c, tmp_path / str(i)) for i, c in enumerate(configs)])
