"""The search for the level of the rates, on known functions and on real runs."""

import dataclasses
import functools

import numpy as np
import pytest
from absl import app, flags

from learned_optimizer import load_weights
from meta_training import calibrate
from meta_training.optimizers import HierarchicalRule
from meta_training.outer.calibration import Calibration, CalibrationConfig
from meta_training.tasks.released.quadratics import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron

WEIGHTS = load_weights("bootstrap-v1")
RULE = HierarchicalRule(WEIGHTS.config)
TASKS = [Perceptron(4, (5,), 3, batch_size=8, rows=64), Quadratic(3), Quadratic(3)]


class Valley(Calibration):
    """A calibration whose score is known: lowest at `bottom`."""

    def __init__(self, bottom, knobs):
        self.config = CalibrationConfig(knobs=knobs)
        self.bottom = bottom
        self.calls = []

    def score(self, meta_parameters):
        values = tuple(float(np.mean(meta_parameters[name])) for name in self.bottom)
        self.calls.append(values)
        wanted = np.array(list(self.bottom.values()))
        return float(np.sum(np.square(np.array(values) - wanted)))


@pytest.mark.parametrize(
    "bottom, found",
    [
        ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}),
        ({"a": 2.9, "b": 0.0}, {"a": 3.0, "b": 0.0}),
        ({"a": -1.4, "b": 0.6}, {"a": -1.5, "b": 0.5}),
    ],
)
def test_the_search_ends_at_the_bottom(bottom, found):
    valley = Valley(bottom, ("a", "b"))
    start = {"a": np.zeros(2, np.float32), "b": np.zeros((), np.float32)}
    best, trials = valley.search(start)
    for name, value in found.items():
        np.testing.assert_allclose(best[name], value)
        assert best[name].shape == start[name].shape
    assert len(set(valley.calls)) == len(valley.calls) == len(trials)
    assert min(trial.score for trial in trials) == valley.score(best)
    np.testing.assert_array_equal(start["a"], 0)


def test_the_score_is_that_of_whole_runs():
    """A frozen optimizer scores as the start does, a good one lower."""
    calibration = Calibration(TASKS, RULE, CalibrationConfig(steps=40))
    frozen = dict(WEIGHTS.meta_parameters)
    frozen["step_length_offset"] = np.float32(-60.0)
    starts = []
    for loop, _ in calibration._loops:
        arguments = {
            "meta_parameters": frozen,
            "log_learning_rate": np.zeros(loop.optimizer.runs, np.float32),
        }
        losses = loop(calibration.record_steps, arguments).losses
        np.testing.assert_allclose(losses, losses[:1].repeat(len(losses), 0), rtol=1e-5)
        starts += list(np.log(losses[0] + 1e-3))
    assert len(starts) == len(TASKS)
    assert calibration.score(frozen) == pytest.approx(np.mean(starts), rel=1e-4)
    assert calibration.score(WEIGHTS.meta_parameters) < calibration.score(frozen)


READOUTS = ("direction", "learning_rate", "gradient_decay", "mean_square_decay")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`calibrate` with flags of its own: a function of its arguments to the card."""
    values = flags.FlagValues()
    monkeypatch.setattr(calibrate, "FLAGS", values)
    for kind in ("string", "enum", "integer", "list", "float"):
        name = f"DEFINE_{kind}"
        monkeypatch.setattr(
            calibrate.flags,
            name,
            functools.partial(getattr(flags, name), flag_values=values),
        )
    calibrate.define_flags()
    monkeypatch.setattr(calibrate, "task_set", lambda name: TASKS)

    def run(*arguments):
        output = tmp_path / "level.npz"
        values.unparse_flags()
        values(["calibrate", f"--output={output}", *arguments])
        calibrate.main(["calibrate"])
        return load_weights(str(output))

    return run


def test_the_command_writes_weights_with_its_trials(command):
    found = command(
        "--weights=bootstrap-v1",
        "--steps=10",
        "--knobs=step_length_offset",
        "--smallest_step=1",
    )
    (entry,) = found.card["calibrations"]
    best = min(entry["trials"], key=lambda trial: trial["score"])
    np.testing.assert_allclose(
        found.meta_parameters["step_length_offset"],
        WEIGHTS.meta_parameters["step_length_offset"] + np.float32(best["shift"]),
    )
    assert entry["sha256_before"] == WEIGHTS.card["sha256"]


def test_switches_of_the_nominal_rate_are_set_without_a_search(command):
    before = load_weights("default-v1")
    found = command(
        "--weights=default-v1", "--nominal=largest=1,shallow_tensors=16", "--knobs="
    )
    nominal = dataclasses.replace(
        before.config.nominal, largest=1.0, shallow_tensors=16.0
    )
    assert found.config == dataclasses.replace(before.config, nominal=nominal)
    np.testing.assert_array_equal(found.to_flat(), before.to_flat())
    entry = found.card["calibrations"][-1]
    assert entry["nominal"] == ["largest=1", "shallow_tensors=16"]
    assert entry["trials"] == []
    # What is said of the numbers before is not true of these.
    for name in ("evaluations", "known_limits", "runs", "commands"):
        assert name in before.card and name not in found.card
    # So `default-v2` was made.
    assert found.card["sha256"] == load_weights("default-v2").card["sha256"]


def test_arrays_are_set_to_0_without_a_search(command):
    before = load_weights("default-v2")
    found = command("--weights=default-v2", "--zeros=direction_weights", "--knobs=")
    assert found.config == before.config
    for name, array in before.meta_parameters.items():
        expected = np.zeros_like(array) if name == "direction_weights" else array
        np.testing.assert_array_equal(found.meta_parameters[name], expected)
    # So `default-v3` was made.
    assert found.card["sha256"] == load_weights("default-v3").card["sha256"]


def test_switches_are_turned_on_without_a_search(command):
    before = load_weights("default-v3")
    found = command(
        "--weights=default-v3",
        "--switches=odd_direction,absolute_inputs,gradient_decline",
        "--nominal=decline=0.3",
        "--knobs=",
    )
    assert found.config.odd_direction and found.config.absolute_inputs
    assert found.config.gradient_decline and found.config.nominal.decline == 0.3
    assert found.config.nominal.largest == before.config.nominal.largest
    assert not found.meta_parameters["direction_coefficients"].any()
    for name, array in before.meta_parameters.items():
        if name != "direction_weights":
            np.testing.assert_array_equal(found.meta_parameters[name], array)


def test_readouts_at_0_leave_the_rule_by_hand(command):
    found = command("--weights=default-v2", "--zeros=readouts", "--knobs=")
    zeros = {n for n, array in found.meta_parameters.items() if not np.any(array)}
    assert {f"{name}_weights" for name in READOUTS} <= zeros
    assert set(found.card["calibrations"][-1]["zeros"]) == {
        f"{name}_weights" for name in READOUTS
    }


@pytest.mark.parametrize(
    "bad, message",
    [
        ("--output=level.json", "end in .npz"),
        ("--knobs=level", "--knobs must be among"),
        ("--zeros=level", "--zeros must be among"),
        ("--switches=attention", "--switches must be among"),
        ("--switches=gradient_decline", "lowers the nominal learning rate and needs"),
        ("--first_step=0.1", "smallest_step must be at most first_step"),
        ("--modules=no_such_module", "--modules must name modules"),
        (f"--output={__file__}/level.npz", "Not a directory|File exists"),
        ("--nominal=largest=1", "Received: weights without one"),
        ("--weights=default-v1 --nominal=largest", "NAME=NUMBER. Received: 'largest'"),
        ("--weights=default-v1 --nominal=depth=1", "has the fields"),
        ("--weights=default-v1 --nominal=largest=-1", "a finite number, above 0"),
    ],
)
def test_bad_commands(bad, message, command):
    with pytest.raises(app.UsageError, match=message):
        command("--weights=bootstrap-v1", *bad.split())


def test_bad_calibrations():
    with pytest.raises(ValueError, match="one task or more"):
        Calibration([], RULE)
    with pytest.raises(ValueError, match="must be at most high_learning_rate"):
        CalibrationConfig(low_learning_rate=1.0, high_learning_rate=0.1)
    with pytest.raises(ValueError, match="a knob must be one of"):
        Valley({"a": 0.0}, ("c",)).search({"a": np.zeros(1)})
