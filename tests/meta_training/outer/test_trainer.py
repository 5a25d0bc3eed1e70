"""Runs: they learn, resume where they stopped, and refuse what they cannot do."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.run_log import SilentLog
from meta_training.estimators import Estimate
from meta_training.outer import training_config
from meta_training.outer.run_folder import LOCK
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set
from meta_training.tasks.base import Task
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from meta_training.tasks.released.classifiers import SoftmaxRegression
from tests.arrays import assert_equal
from tests.meta_training.outer.tiny_runs import TINY, Standing, windows_of


@dataclasses.dataclass(frozen=True)
class Waves(Task):
    """Bounded, and so steep that what flows back through a window overflows."""

    parameter_shapes = ((2,),)

    def objective(self, parameters, instance):
        return tf.reduce_sum(1 - tf.cos(100.0 * parameters[0]), axis=-1)


@register_task_set("trainer_test_chaotic")
def _chaotic():
    return [Waves(), Quadratic(3)]


@register_task_set("trainer_test_weighted")
def _weighted():
    softmax = SoftmaxRegression(2, rows=8, batch_size=4)
    return [Bowl(5.0), Bowl(1.0, noise_stdev=0.3), softmax]


class Told(Standing):
    """Windows of these tasks that lead to figures which a test knows.

    Those of cohort 1 are three times those of cohort 0.
    """

    def estimate(self, cohort, carry, meta_parameters):
        gradient, window, state = super().estimate(cohort, carry, meta_parameters)
        task = cohort.trajectories.batch.problem_task
        factor = np.float32([1, 3][cohort.number])
        alive = window.alive
        if (cohort.number, cohort.windows) == (1, 1):
            # The noisy bowl is cut off, and so starts again with the window after.
            alive = np.where(task == 1, np.float32(0), alive)
        window = window._replace(
            losses=factor * np.float32([1, 2, 4])[task],
            alive=alive,
            mean_log_learning_rate=-factor * window.mean_log_learning_rate,
        )
        gradient = {name: factor * value for name, value in gradient.items()}
        return Estimate(gradient, window, state)


def test_a_trainer_that_has_stopped_goes_on(tmp_path):
    # Every window starts all trajectories anew.
    config = preset("default", **{**TINY, "mean_horizon": 1.0})
    whole = Trainer(config, tmp_path / "whole", Standing())
    whole.train()
    trainer = Trainer(config, tmp_path / "parts", Standing())
    for until, done in ((0, 0), (2, 2), (1, 2), (None, 5), (9, 5)):
        trainer.train(until=until)
        assert trainer.outer_step == done
    assert_equal(trainer.meta_parameters, whole.meta_parameters)
    assert_equal(trainer.cohorts[0].state(), whole.cohorts[0].state())
    rows = read_csv(tmp_path / "parts" / "train.csv")
    assert [row["outer_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert list((tmp_path / "parts" / "tensorboard").iterdir())


@pytest.mark.parametrize("saved", [0, 4])
@pytest.mark.parametrize("written", [1, 2])
def test_killed_as_it_saved_it_writes_the_weights_again(
    tmp_path, monkeypatch, saved, written
):
    config = preset("default", **TINY)
    trainer = Trainer(config, tmp_path, Standing())
    if saved:
        trainer.train(until=saved)
    while trainer.outer_step < config.outer_steps:
        trainer._outer_step()
    left = [written]
    replace = os.replace

    def replace_or_die(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_or_die)
        trainer.save()
    # Nothing is left to train, and not all who wait for its end call `train`.
    resumed = Trainer(config, tmp_path, Standing())
    assert resumed.outer_step == config.outer_steps
    found = load_weights(tmp_path / "weights.npz")
    assert found.card["outer_step"] == config.outer_steps
    assert_equal(found.meta_parameters, trainer.meta_parameters)
    # Those of the checkpoint stay, with the commit and the hours of their card.
    card = tmp_path / "weights.json"
    card.write_text(card.read_text().replace('"commit"', '"Commit"'))
    Trainer(config, tmp_path, Standing())
    assert "Commit" in load_weights(tmp_path / "weights.npz").card


def test_the_best_weights_stay_the_best(tmp_path):
    config = preset("default", **TINY, validate_every=1)

    def trainer_with(*scores):
        trainer = Trainer(config, tmp_path, Standing())
        left = iter(scores)
        trainer.validate_with(lambda meta_parameters: {"score": next(left)})
        return trainer

    def best():
        card = load_weights(tmp_path / "best.npz").card
        return card["outer_step"], card["validation"]["score"]

    killed = trainer_with(3.0, 2.5, 2.0, 1.0)
    killed.train(until=2)
    assert best() == (2, 2.0)
    killed._outer_step()
    killed._run_validation(SilentLog())
    assert best() == (3, 1.0)
    # The step is done again, and validated with another result.
    trainer_with(1.5, 1.2).train(until=4)
    assert best() == (3, 1.0)
    trainer_with(0.5).train()
    assert best() == (5, 0.5)
    # What cannot be loaded is the best of nothing.
    (tmp_path / "best.npz").write_bytes(b"")
    assert trainer_with().outer_step == 5


def test_the_figures_of_a_step_are_those_of_its_windows(tmp_path):
    changes = dict(task_set="trainer_test_weighted", outer_steps=4, mean_horizon=1e9)
    weights = dict(deterministic_weight=1.0, noisy_weight=2.0, minibatch_weight=5.0)
    options = dict(cohorts=2, meta_learning_rate=1e-3, clip_norm=0.5)
    settings = TINY | windows_of(4) | changes | weights | options
    config = preset("default", **settings)
    trainer = Trainer(config, tmp_path, Told())
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    after = trainer.train()
    rows = read_csv(tmp_path / "train.csv")

    def column(name):
        return [row[name] for row in rows]

    # The losses are 1, 2 and 4 in cohort 0, and 3, 6 and 12 in cohort 1; they count
    # 1, 2 and 5 eighths.
    in_one = (1 * 1 + 2 * 2 + 5 * 4) / 8
    elements = sum(value.size for value in before.values())
    wanted = {
        "loss": (in_one + 3 * in_one) / 2,
        "mean_loss": 28 / 6,
        "loss/bowl": (1 + 2 + 3 + 6) / 4,
        "loss/softmax_regression": (4 + 12) / 2,
        "mean_log_learning_rate": -2.0,
        "window_steps": 4,
        # Each element of the mean meta-gradient is (1 + 3) / 2.
        "gradient_norm": 2 * elements**0.5,
        "clipped_gradient_norm": 0.5,
        "skipped": 0,
    }
    assert wanted["loss"] == 6.25
    for name, value in wanted.items():
        assert column(name) == pytest.approx([value] * 4, rel=1e-5), name
    # Three tasks in two cohorts start; one is cut off and starts again.
    assert column("fresh") == [6, 0, 1, 0]
    assert column("cut_off") == [0, 1, 0, 0]
    # Four steps of three tasks in two cohorts.
    for row in rows:
        steps = row["inner_steps_per_second"] * row["seconds"]
        assert steps == pytest.approx(24, rel=1e-4)
    card = load_weights(tmp_path / "weights.npz").card
    assert card["inner_steps"] == 4 * 24
    # A half cosine from 1 down to 0 over the run, at each quarter, and what is left at
    # its end is a fiftieth.
    cosine = np.array([1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4])
    rates = 1e-3 * (0.02 + 0.98 * cosine)
    assert column("meta_learning_rate") == pytest.approx(list(rates), rel=1e-5)
    # Adam's steps along a constant gradient are as long as its learning rates.
    for name, value in before.items():
        moves = value - after[name]
        np.testing.assert_allclose(moves, rates.sum(), 1e-4, 2e-6, err_msg=name)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"task_set": "none"}, "none"),
        ({"task_set": "sum_of_quadratics_problems"}, "that may be negative, sum_of_qu"),
        ({"init_weights": "nowhere", "nominal": NominalRate()}, "nowhere"),
        ({"noisy_weight": 0, "deterministic_weight": 0}, "weights must be 2 numbers"),
    ],
)
def test_a_wrong_start_leaves_the_folder_to_the_right_one(tmp_path, wrong, message):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        Trainer(preset("default", **{**TINY, **wrong}), folder)
    assert not folder.exists()
    right = Trainer(preset("default", **TINY), folder)
    files_there = {path.name for path in folder.iterdir()}
    assert files_there == {training_config.FILE, LOCK}
    assert right.outer_step == 0


@pytest.mark.parametrize("second_derivatives", [True, False])
def test_a_chaotic_task_leaves_the_others_their_gradient(
    tmp_path, second_derivatives, warned
):
    changes = dict(task_set="trainer_test_chaotic", optimizer="global_learning_rate")
    changes |= dict(outer_steps=2, mean_horizon=100.0, meta_learning_rate=0.01, parts=1)
    changes |= dict(second_derivatives=second_derivatives)
    config = preset("released", **windows_of(100), **changes)
    trainer = Trainer(config, tmp_path)
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    trainer.train()
    for row in read_csv(tmp_path / "train.csv"):
        assert not row["skipped"] and np.isfinite(row["gradient_norm"])
    assert not warned
    for name, value in before.items():
        assert np.all(trainer.meta_parameters[name] != value)


def test_a_step_that_is_skipped_is_told_of(tmp_path, warned):
    class Broken(Standing):
        def next_outcome(self, meta_parameters):
            outcome = super().next_outcome(meta_parameters)
            for report in outcome[0]:
                for value in report.gradient.values():
                    value.fill(np.nan)
            return outcome

    trainer = Trainer(preset("default", **TINY), tmp_path, Broken())
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    trainer.train(until=2)
    assert [step for _, step in warned] == [0, 1]
    assert_equal(trainer.meta_parameters, before)


def test_saved_weights_have_the_nominal_rate_and_the_zeros_of_its_input(tmp_path):
    Trainer(preset("default", **TINY, nominal=NominalRate(ratio=0.2)), tmp_path).save()
    saved = load_weights(str(tmp_path / "weights.npz"))
    assert saved.config.nominal == NominalRate(ratio=0.2)
    kernel = saved.meta_parameters["parameter_gates_kernel"]
    assert kernel.shape == (13 + 10, 20)
    np.testing.assert_array_equal(kernel[12], 0)
