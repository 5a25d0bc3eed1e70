"""Runs: they learn, go on where they stopped, and refuse what they cannot do."""

import csv
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)

from learned_optimizer import Config, fresh_weights, load_weights, save_weights
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.arrays import arrays_from_npz, load_arrays, save_arrays
from learned_optimizer.utils.csv_log import read_csv
from meta_training.distribution import Outcome
from meta_training.distribution.one_device import OneDevice
from meta_training.estimators import Estimate
from meta_training.inner.windows import Window
from meta_training.outer import trainer as trainer_module
from meta_training.outer import training_config
from meta_training.outer.meta_optimizers import MetaOptimizer, norm
from meta_training.outer.run_folder import LOCK
from meta_training.outer.run_log import RunLog, SilentLog
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set
from meta_training.tasks.base import Task
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.released.quadratics import Quadratic
from meta_training.tasks.released.softmax_regression import SoftmaxRegression

TINY = dict(
    task_set="trainer_test",
    init_weights="bootstrap-v1",
    block_size=2,
    min_window_steps=3,
    mean_window_steps=4.0,
    max_window_steps=6,
    mean_horizon=9.0,
    checkpoint_every=2,
    outer_steps=5,
    objective_rows=None,
)


@register_task_set("trainer_test")
def _trainer_test():
    return [Bowl(5.0), Bowl(1.0, noise_stdev=0.3)]


@dataclasses.dataclass(frozen=True)
class Negative(Task):
    """An objective that starts at `start`."""

    start: float = -1.0
    numbers = ("start",)

    @property
    def parameter_shapes(self):
        return ((2,),)

    def sample_instance(self, generator):
        return {"start": np.float32(self.start)}

    def objective(self, parameters, instance):
        return instance["start"] + 0.0 * tf.reduce_sum(parameters[0], axis=-1)


@register_task_set("trainer_test_negative")
def _negative():
    return [Negative()]


@dataclasses.dataclass(frozen=True)
class Signed(Negative):
    """One that says so."""

    positive = False


@register_task_set("trainer_test_signed")
def _signed():
    return [Bowl(5.0), Signed()]


@dataclasses.dataclass(frozen=True)
class Waves(Task):
    """Bounded, and so steep that what flows back through a window overflows."""

    @property
    def parameter_shapes(self):
        return ((2,),)

    def objective(self, parameters, instance):
        return tf.reduce_sum(1 - tf.cos(100.0 * parameters[0]), axis=-1)


@register_task_set("trainer_test_chaotic")
def _chaotic():
    return [Waves(), Quadratic(3)]


@dataclasses.dataclass(frozen=True)
class Misshapen(Task):
    """An objective that is not a number for each problem."""

    kind: str

    @property
    def parameter_shapes(self):
        return ((2,),)

    def sample_instance(self, generator):
        return {"scale": generator.exponential(size=2)}  # Of double precision.

    def objective(self, parameters, instance):
        squares = tf.square(parameters[0])
        if self.kind == "double":
            return tf.reduce_sum(squares * instance["scale"], axis=-1)
        if self.kind == "scalar":
            return tf.reduce_sum(squares)
        return tf.reduce_sum(squares, axis=-1, keepdims=True)


for _kind in ("scalar", "column", "double"):
    register_task_set(f"trainer_test_{_kind}")(
        lambda kind=_kind: [Misshapen(kind), Bowl(5.0)]
    )


@register_task_set("trainer_test_not_finite")
def _not_finite():
    return [Negative(float("nan"))]


class Standing(OneDevice):
    """Windows whose tasks stay where they are: nothing is compiled."""

    def next_outcome(self, meta_parameters):
        reports = [
            cohort.end(self.estimate(cohort, cohort.begin().carry, meta_parameters))
            for cohort in self._cohorts
        ]
        return Outcome(reports, {})

    def estimate(self, cohort, carry, meta_parameters):
        ones = np.ones_like(carry.alive)
        window = Window(carry.inner, ones, ones, None, ones, ones)
        gradient = {n: np.ones_like(value) for n, value in meta_parameters.items()}
        return Estimate(gradient, window, cohort.carried)


@register_task_set("trainer_test_weighted")
def _weighted():
    return [
        Bowl(5.0),
        Bowl(1.0, noise_stdev=0.3),
        SoftmaxRegression(2, rows=8, batch_size=4),
    ]


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


class TestResume:
    """A run that stops at a checkpoint, and one that does not."""

    @pytest.mark.slow
    @pytest.mark.parametrize("estimator", ["truncated", "pes"])
    def test_ends_with_the_same_meta_parameters(self, tmp_path, estimator, caplog):
        config = preset("default", estimator=estimator, **TINY)
        whole = Trainer(config, tmp_path / "whole").train()
        start = load_weights("bootstrap-v1").meta_parameters
        assert any(np.any(whole[name] != start[name]) for name in whole)

        # Killed after the third step: the one after the checkpoint is done again.
        first = Trainer(config, tmp_path / "parts")
        first.train(until=2)
        first._outer_step()
        del first
        second = Trainer(config, tmp_path / "parts")
        assert second.outer_step == 2
        parts = second.train()
        for name, value in whole.items():
            np.testing.assert_array_equal(value, parts[name], err_msg=name)
        saved = load_weights(tmp_path / "parts" / "weights.npz")
        for name, value in whole.items():
            np.testing.assert_array_equal(value, saved.meta_parameters[name])
        assert saved.card["outer_step"] == 5
        with open(tmp_path / "parts" / "train.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["outer_step"] for row in rows] == ["0", "1", "2", "3", "4"]
        assert list((tmp_path / "parts" / "tensorboard").iterdir())

    def test_a_trainer_that_has_stopped_goes_on(self, tmp_path):
        # Every window starts all trajectories anew.
        config = preset("default", **{**TINY, "mean_horizon": 1.0})
        whole = Trainer(config, tmp_path / "whole", Standing())
        whole.train()
        trainer = Trainer(config, tmp_path / "parts", Standing())
        for until, done in ((0, 0), (2, 2), (1, 2), (None, 5), (9, 5)):
            trainer.train(until=until)
            assert trainer.outer_step == done
        for name, value in whole.meta_parameters.items():
            np.testing.assert_array_equal(trainer.meta_parameters[name], value)
        state = trainer.cohorts[0].state()
        for name, value in whole.cohorts[0].state().items():
            np.testing.assert_array_equal(state[name], value, err_msg=name)
        rows = read_csv(tmp_path / "parts" / "train.csv")
        assert [row["outer_step"] for row in rows] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("saved", [0, 4])
    @pytest.mark.parametrize("written", [1, 2])
    def test_killed_as_it_saved_it_writes_the_weights_again(
        self, tmp_path, monkeypatch, saved, written
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
        for name, value in trainer.meta_parameters.items():
            np.testing.assert_array_equal(found.meta_parameters[name], value)
        # Those of the checkpoint stay, with the commit and the hours of their card.
        (tmp_path / "weights.json").write_text(
            (tmp_path / "weights.json").read_text().replace('"commit"', '"Commit"')
        )
        Trainer(config, tmp_path, Standing())
        assert "Commit" in load_weights(tmp_path / "weights.npz").card

    def test_the_best_weights_stay_the_best(self, tmp_path):
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


def test_validation_keeps_the_best(tmp_path):
    # Of the three meta-gradients two are longer than this and one is far shorter.
    config = preset(
        "default", **{**TINY, "outer_steps": 3}, validate_every=1, clip_norm=0.01
    )
    scores = iter([3.0, 1.0, 2.0, 1.5])
    seen = []

    def validate(meta_parameters):
        seen.append({name: value.copy() for name, value in meta_parameters.items()})
        return {"score": next(scores), "loss": 0.5}

    trainer = Trainer(config, tmp_path)
    trainer.validate_with(validate)
    trainer.train()
    assert len(seen) == 4
    best = load_weights(tmp_path / "best.npz")
    for name, value in seen[1].items():
        np.testing.assert_array_equal(value, best.meta_parameters[name])
    assert best.card["validation"] == {"score": 1.0, "loss": 0.5}
    with open(tmp_path / "validation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [3.0, 1.0, 2.0, 1.5]
    # TensorBoard shows the same, and what else there is to see.
    scalars = _scalars(tmp_path / "tensorboard")
    assert scalars["validation/score"] == {0: 3.0, 1: 1.0, 2: 2.0, 3: 1.5}
    assert scalars["validation/loss"] == dict.fromkeys(range(4), 0.5)
    with open(tmp_path / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for tag in (
        *("loss", "loss/bowl", "mean_log_learning_rate", "meta_learning_rate"),
        *("gradient_norm", "clipped_gradient_norm"),
    ):
        assert list(scalars[tag]) == [0, 1, 2]
        wanted = [float(row[tag]) for row in rows]
        np.testing.assert_allclose(list(scalars[tag].values()), wanted, rtol=1e-5)
    norms = list(scalars["gradient_norm"].values())
    # Else nothing would be clipped, or everything.
    assert min(norms) < config.clip_norm / 2 and max(norms) > config.clip_norm * 2
    assert list(scalars["clipped_gradient_norm"].values()) == pytest.approx(
        [min(value, config.clip_norm) for value in norms], rel=1e-4
    )


def test_the_figures_of_a_step_are_those_of_its_windows(tmp_path):
    config = preset(
        "default",
        **{
            **TINY,
            "task_set": "trainer_test_weighted",
            "outer_steps": 4,
            "min_window_steps": 4,
            "max_window_steps": 4,
            "mean_horizon": 1e9,
        },
        cohorts=2,
        deterministic_weight=1.0,
        noisy_weight=2.0,
        minibatch_weight=5.0,
        meta_learning_rate=1e-3,
        clip_norm=0.5,
    )
    trainer = Trainer(config, tmp_path, Told())
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    after = trainer.train()
    rows = read_csv(tmp_path / "train.csv")

    def column(name):
        return [row[name] for row in rows]

    # The losses are 1, 2 and 4 in cohort 0, and 3, 6 and 12 in cohort 1; they count
    # 1, 2 and 5 eighths.
    in_one = (1 * 1 + 2 * 2 + 5 * 4) / 8
    assert column("loss") == pytest.approx([(in_one + 3 * in_one) / 2] * 4, rel=1e-5)
    assert column("loss") == pytest.approx([6.25] * 4, rel=1e-5)
    assert column("mean_loss") == pytest.approx([28 / 6] * 4, rel=1e-5)
    assert column("loss/bowl") == pytest.approx([(1 + 2 + 3 + 6) / 4] * 4, rel=1e-5)
    assert column("loss/softmax_regression") == pytest.approx([(4 + 12) / 2] * 4)
    assert column("mean_log_learning_rate") == pytest.approx([-2.0] * 4)
    # Three tasks in two cohorts start; one is cut off and starts again.
    assert column("fresh") == [6, 0, 1, 0]
    assert column("cut_off") == [0, 1, 0, 0]
    # Four steps of three tasks in two cohorts.
    assert column("window_steps") == [4] * 4
    for row in rows:
        steps = row["inner_steps_per_second"] * row["seconds"]
        assert steps == pytest.approx(24, rel=1e-4)
    card = load_weights(tmp_path / "weights.npz").card
    assert card["inner_steps"] == 4 * 24
    # Each element of the mean meta-gradient is (1 + 3) / 2.
    elements = sum(value.size for value in before.values())
    assert column("gradient_norm") == pytest.approx([2 * elements**0.5] * 4, rel=1e-5)
    assert column("clipped_gradient_norm") == pytest.approx([0.5] * 4, rel=1e-5)
    assert column("skipped") == [0] * 4
    # A half cosine from 1 down to 0 over the run, at each quarter, and what is left at
    # its end is a fiftieth.
    cosine = np.array([1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4])
    rates = 1e-3 * (0.02 + 0.98 * cosine)
    assert column("meta_learning_rate") == pytest.approx(list(rates), rel=1e-5)
    # Adam's steps along a constant gradient are as long as its learning rates.
    for name, value in before.items():
        np.testing.assert_allclose(
            value - after[name], rates.sum(), rtol=1e-4, atol=2e-6, err_msg=name
        )


def test_how_much_a_task_counts_goes_by_what_is_random_in_it():
    config = preset(
        "default", deterministic_weight=1.0, noisy_weight=2.0, minibatch_weight=5.0
    )
    assert config.weight(Bowl(5.0)) == 1.0
    assert config.weight(SoftmaxRegression(2, rows=8)) == 1.0
    assert config.weight(Bowl(5.0, noise_stdev=0.3)) == 2.0
    assert config.weight(Bowl(5.0, gradient_zero_probability=0.5)) == 2.0
    assert config.weight(SoftmaxRegression(2, rows=8, batch_size=4)) == 5.0
    # Of two things the minibatches decide.
    both = SoftmaxRegression(2, rows=8, batch_size=4, noise_stdev=0.3)
    assert config.weight(both) == 5.0


def _scalars(folder):
    """`{tag: {step: value}}` of the event files of TensorBoard in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found


def test_a_run_killed_before_its_first_checkpoint_starts_its_files_anew(tmp_path):
    def first_figures(score):
        log = RunLog(tmp_path, 0, 5)
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
    RunLog(tmp_path, 1, 5).close()
    assert [row["outer_step"] for row in read_csv(tmp_path / "validation.csv")] == [
        *(0, 1)
    ]
    assert read_csv(tmp_path / "train.csv") == [
        {"outer_step": 0, "loss": 7.0, "cut_off": 0}
    ]


def test_tensorboard_forgets_the_steps_that_are_done_again(tmp_path):
    def log_from(outer_step, rows, validations):
        log = RunLog(tmp_path, outer_step, 5)
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


def test_a_folder_of_other_settings_is_refused(tmp_path):
    preset("default", **TINY).write_or_verify(tmp_path)
    preset("default", **{**TINY, "outer_steps": 50}).write_or_verify(tmp_path)
    with pytest.raises(ValueError, match="another configuration.*seed: 0 there, 1 now"):
        preset("default", **TINY, seed=1).write_or_verify(tmp_path)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"task_set": "none"}, "none"),
        ({"task_set": "trainer_test_signed"}, "may not have: signed"),
        ({"init_weights": "nowhere", "nominal": NominalRate()}, "nowhere"),
        ({"estimator": "pes", "pes_sigma": 0.0}, "sigma must be positive"),
        ({"minibatch_weight": 0.0, "noisy_weight": -1.0}, "weights must be 2 numbers"),
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


def test_objectives_that_may_be_negative_go_with_another_meta_objective(tmp_path):
    changes = {**TINY, "task_set": "trainer_test_signed"}
    with pytest.raises(
        ValueError,
        match="meta-objective log needs objectives of 0 or more, which these tasks "
        "may not have: signed$",
    ):
        Trainer(preset("default", **changes), tmp_path)
    Trainer(preset("default", **changes, meta_objective="linear"), tmp_path)


@dataclasses.dataclass(frozen=True)
class Shifted(Task):
    """A bowl whose bottom lies at `level`."""

    level: float
    positive = False

    @property
    def parameter_shapes(self):
        return ((2,),)

    def objective(self, parameters, instance):
        return self.level + tf.reduce_sum(parameters[0] ** 2, axis=-1)


for _level in (100.0, -100.0):
    register_task_set(f"trainer_test_{_level:g}")(lambda level=_level: [Shifted(level)])


@pytest.mark.parametrize("level", [100, -100])
@pytest.mark.parametrize("meta_objective", ["relative", "linear"])
def test_meta_objectives_reward_descent_wherever_an_objective_starts(
    tmp_path, meta_objective, level
):
    config = preset(
        "released",
        **{**TINY, "init_weights": None, "task_set": f"trainer_test_{level}"},
        optimizer="global_learning_rate",
        meta_objective=meta_objective,
        meta_learning_rate=0.01,
    )
    trainer = Trainer(config, tmp_path)
    before = float(trainer.meta_parameters["log_learning_rate"])
    if meta_objective == "linear" and level < 0:
        with pytest.raises(ValueError, match="linear needs .* at the start; that of"):
            trainer.train()
        return
    trainer.train()
    # Rates below 1e-2 are far too low for a bowl.
    assert float(trainer.meta_parameters["log_learning_rate"]) > before


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
    other = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import fcntl, sys; file = open(sys.argv[1], 'a'); "
            "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()",
            str(tmp_path / LOCK),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        other.stdout.readline()
        with pytest.raises(ValueError, match="no other running.*one is training in"):
            trainer.train(1)
        assert not (tmp_path / "train.csv").exists()
    finally:
        other.communicate()
    # The lock of a process that has ended is free.
    trainer.train(1)
    assert trainer.outer_step == 1


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "events.out").write_text("x")
    with pytest.raises(ValueError, match="must be empty"):
        Trainer(preset("default", **TINY), tmp_path)


def test_a_full_disk_leaves_the_last_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    save_arrays(path, {"a": np.arange(5)})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learned_optimizer.utils.atomic_write.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(path, {"a": np.arange(9)})
    np.testing.assert_array_equal(load_arrays(path)["a"], np.arange(5))
    assert list(tmp_path.iterdir()) == [path]


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
    message = "outer step 4 could not be saved.*No space left.*checkpoint is left"
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


@pytest.mark.parametrize(
    "task_set, message",
    [
        ("trainer_test_negative", "objectives of 0 or more"),
        ("trainer_test_not_finite", "must be finite"),
        ("trainer_test_scalar", r"a number for each problem.*misshapen.* shape \(\)"),
        ("trainer_test_column", r"that of misshapen.* of shape \(1, 1\)"),
        ("trainer_test_double", "objective of the task misshapen.* cannot be computed"),
    ],
)
def test_unusable_objectives_are_refused(tmp_path, task_set, message):
    trainer = Trainer(preset("default", **{**TINY, "task_set": task_set}), tmp_path)
    with pytest.raises(ValueError, match=message):
        trainer.train()


@pytest.mark.parametrize("second_derivatives", [True, False])
def test_a_chaotic_task_leaves_the_others_their_gradient(
    tmp_path, second_derivatives, monkeypatch
):
    warned = []
    monkeypatch.setattr(
        trainer_module.logging, "warning", lambda text, *_: warned.append(text)
    )
    config = preset(
        "released",
        task_set="trainer_test_chaotic",
        optimizer="global_learning_rate",
        outer_steps=2,
        min_window_steps=100,
        mean_window_steps=100.0,
        max_window_steps=100,
        mean_horizon=100.0,
        meta_learning_rate=0.01,
        second_derivatives=second_derivatives,
        parts=1,
    )
    trainer = Trainer(config, tmp_path)
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    trainer.train()
    for row in read_csv(tmp_path / "train.csv"):
        assert not row["skipped"] and np.isfinite(row["gradient_norm"])
    assert not warned
    for name, value in before.items():
        assert np.all(trainer.meta_parameters[name] != value)


def test_a_step_that_is_skipped_is_told_of(tmp_path, monkeypatch):
    class Broken(Standing):
        def next_outcome(self, meta_parameters):
            outcome = super().next_outcome(meta_parameters)
            reports = [
                report._replace(
                    gradient={
                        name: np.full_like(value, np.nan)
                        for name, value in report.gradient.items()
                    }
                )
                for report in outcome.reports
            ]
            return Outcome(reports, outcome.figures)

    warned = []
    monkeypatch.setattr(
        trainer_module.logging, "warning", lambda *words: warned.append(words)
    )
    trainer = Trainer(preset("default", **TINY), tmp_path, Broken())
    before = {name: value.copy() for name, value in trainer.meta_parameters.items()}
    trainer.train(until=2)
    assert [step for _, step in warned] == [0, 1]
    for name, value in before.items():
        np.testing.assert_array_equal(trainer.meta_parameters[name], value)


def test_arrays_that_there_are_not_cannot_be_trained(tmp_path):
    config = preset("default", **TINY, trained_arrays=("learning_*", "typo"))
    with pytest.raises(ValueError, match=r"must be among .*Received: \['typo'\]"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(fresh_weights(seed=0), "start.npz")
    config = preset("released", **{**TINY, "init_weights": "start.npz"})
    Trainer(config, "run", Standing()).train(until=2)
    # The file is replaced by one of as many numbers.
    save_weights(fresh_weights(Config(max_log_learning_rate=5.0), seed=0), "start.npz")
    with pytest.raises(ValueError, match="the architecture that it began with"):
        Trainer(config, "run", Standing())


def test_a_full_disk_under_the_log_says_what_it_means(tmp_path, monkeypatch):
    config = preset("default", **TINY)
    trainer = Trainer(config, tmp_path, Standing())

    def full(*_, **__):
        if trainer.outer_step > 2:
            raise tf.errors.OutOfRangeError(None, None, "No space left on device")

    monkeypatch.setattr("meta_training.outer.run_log.tf.summary.scalar", full)
    message = "figures of the run could not be written: .*No space.*checkpoint is left"
    with pytest.raises(OSError, match=message):
        trainer.train()
    monkeypatch.undo()
    assert Trainer(config, tmp_path, Standing()).outer_step == 2


def test_presets():
    released = preset("released")
    assert released.meta_optimizer == "rmsprop" and released.clip_value == 1e4
    assert released.unroll.clip_through_time is None
    assert len(released.tasks()) == 101
    default = preset("default", copies=2)
    assert len(default.tasks()) == 302
    assert default.nominal and not default.unroll.second_derivatives
    assert preset("default", optimizer="trainable_adam").nominal is None
    assert training_config.TrainingConfig(**{"task_set": "released"}).copies == 1


def _adam_change(gradients):
    """Adam's step of length 1 after these gradients, its averages written out."""
    count = len(gradients)
    ages = np.arange(count)[::-1, None]

    def average(decay, values):
        weights = (1 - decay) * decay**ages
        return np.sum(weights * values, axis=0) / (1 - decay**count)

    squares = average(0.999, gradients**2)
    return average(0.9, gradients) / (np.sqrt(squares) + 1e-8)


def _rmsprop_change(gradients):
    """RMSProp's, of which the mean squares start at 1."""
    count = len(gradients)
    ages = np.arange(count)[::-1, None]
    squares = 0.9**count + np.sum(0.1 * 0.9**ages * gradients**2, axis=0)
    return gradients[-1] / np.sqrt(squares + 1e-20)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_meta_optimizers_take_the_steps_of_their_papers(name):
    change = {"adam": _adam_change, "rmsprop": _rmsprop_change}[name]
    # No two alike, so that averages differ from what they are of. The last element's
    # are as small as what Adam adds to a root.
    gradients = np.array([[0.5, -0.25, 1e-8], [-2.0, 1.0, 3e-8], [0.1, 3.0, -2e-8]])
    optimizer = MetaOptimizer(name, 0.1)
    values = {"w": np.array([1.0, -2.0, 0.0], np.float32)}
    expected = values["w"].astype(float)
    state = optimizer.initial_state(values)
    for step, gradient in enumerate(gradients):
        given = {"w": gradient.astype(np.float32)}
        values, state = optimizer.apply(values, given, state, step)
        expected = expected - 0.1 * change(gradients[: step + 1])
        np.testing.assert_allclose(values["w"], expected, rtol=1e-5, err_msg=str(step))


def test_meta_gradients_are_clipped_and_the_learning_rate_decays():
    gradient = {"w": np.array([0.5, -0.25], np.float32)}
    clipped = MetaOptimizer("adam", 0.1, clip_value=0.4, clip_norm=0.1).clip(gradient)
    assert norm(clipped) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(
        clipped["w"][0] / clipped["w"][1], -0.4 / 0.25, rtol=1e-5
    )
    decaying = MetaOptimizer("adam", 0.1, decay_steps=100)
    rates = [decaying.rate(step) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(rates, [0.1, 0.051, 0.002, 0.002])


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path):
    command = [
        *(sys.executable, "-m", "meta_training.train", "--preset=default"),
        *("--task_set=bowl_problems_noisy", "--init_weights=bootstrap-v1"),
        *("--min_window_steps=3", "--window_steps=4", "--max_window_steps=6"),
        *("--mean_horizon=9", "--outer_steps=400", "--checkpoint_every=3"),
        "--validate_every=0",
    ]
    subprocess.run([*command, f"--train_dir={tmp_path / 'whole'}"], check=True)
    part = tmp_path / "part"
    killed, output = 0, ""
    while True:
        process = subprocess.Popen(
            [*command, f"--train_dir={part}"], stderr=subprocess.PIPE, text=True
        )
        before = _checkpoint_time(part)
        while (
            killed < 3 and process.poll() is None and before == _checkpoint_time(part)
        ):
            time.sleep(0.01)
        if killed < 3 and process.poll() is None:
            time.sleep(0.02 * killed)
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        output += process.communicate()[1]
        if process.returncode == 0:
            break
    assert killed == 3
    assert output.count("resumed from outer step") == 3
    whole, parts = (
        load_weights(folder / "weights.npz").meta_parameters
        for folder in (tmp_path / "whole", part)
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


def _checkpoint_time(folder):
    try:
        return (folder / "checkpoint.npz").stat().st_mtime_ns
    except FileNotFoundError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["truncated", "pes"])
def test_only_the_named_arrays_are_trained(estimator, tmp_path):
    named = ("learning_rate_*", "gradient_shortcut")
    config = preset(
        "default",
        **{**TINY, "outer_steps": 1},
        estimator=estimator,
        trained_arrays=named,
        nominal=NominalRate(ratio=0.2),
    )
    trainer = Trainer(config, tmp_path)
    before = dict(trainer.meta_parameters)
    after = trainer.train()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {
        "learning_rate_weights",
        "learning_rate_bias",
        "learning_rate_momentum_logit",
        "gradient_shortcut",
    }
    # Saved weights have the nominal rate, and the zeros that came with its input.
    saved = load_weights(str(tmp_path / "weights.npz"))
    assert saved.config.nominal == NominalRate(ratio=0.2)
    kernel = saved.meta_parameters["parameter_gates_kernel"]
    assert kernel.shape == (13 + 10, 20)
    np.testing.assert_array_equal(kernel[12], 0)
