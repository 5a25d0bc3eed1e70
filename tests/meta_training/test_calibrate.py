"""The command that calibrates: weights, their card, refusals."""

import dataclasses

import numpy as np
import pytest
from absl import app

from learned_optimizer import load_weights
from meta_training import calibrate
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron
from tests.arrays import assert_equal
from tests.commands import run_command

WEIGHTS = load_weights("bootstrap-v1")
READOUTS = ("direction", "learning_rate", "gradient_decay", "mean_square_decay")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`calibrate` on two tasks: a function of its arguments to the weights."""
    tasks = [Perceptron(4, (5,), 3, batch_size=8, rows=64), Quadratic(3)]
    monkeypatch.setattr(calibrate, "task_set", lambda name: tasks)

    def run(*arguments):
        output = tmp_path / "level.npz"
        run_command(calibrate, f"--output={output}", *arguments)
        return load_weights(str(output))

    return run


def test_the_command_writes_weights_with_its_trials(command):
    found = command(
        *("--weights=bootstrap-v1", "--knobs=step_length_offset"),
        *("--steps=10", "--smallest_step=1"),
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
        *("--weights=default-v1", "--nominal=largest=1,shallow_tensors=16", "--knobs="),
        "--initial_learning_rate=0.02",
    )
    bounds = dict(largest=1.0, shallow_tensors=16.0)
    nominal = dataclasses.replace(before.config.nominal, **bounds)
    assert found.config == dataclasses.replace(before.config, nominal=nominal)
    np.testing.assert_array_equal(found.to_flat(), before.to_flat())
    entry = found.card["calibrations"][-1]
    assert entry["nominal"] == ["largest=1", "shallow_tensors=16"]
    assert found.initial_learning_rate == entry["initial_learning_rate"] == 0.02
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
    zeros = {"direction_weights": np.zeros((10, 1))}
    assert_equal(found.meta_parameters, before.meta_parameters | zeros)
    # So `default-v3` was made.
    assert found.card["sha256"] == load_weights("default-v3").card["sha256"]


def test_switches_are_turned_on_without_a_search(command):
    before = load_weights("default-v3")
    found = command(
        *("--weights=default-v3", "--nominal=decline=0.3", "--knobs="),
        "--switches=odd_direction,absolute_inputs,gradient_decline,horizon_input",
    )
    assert found.config.odd_direction and found.config.absolute_inputs
    assert found.config.gradient_decline and found.config.nominal.decline == 0.3
    assert found.config.nominal.largest == before.config.nominal.largest
    arrays, kept = dict(found.meta_parameters), dict(before.meta_parameters)
    for name in ("direction_coefficients", "horizon_to_tensor"):
        assert not arrays.pop(name).any()
    del kept["direction_weights"]
    assert_equal(arrays, kept)


def test_readouts_at_0_leave_the_rule_by_hand(command):
    found = command("--weights=default-v2", "--zeros=readouts", "--knobs=")
    zeros = {n for n, array in found.meta_parameters.items() if not np.any(array)}
    readouts = {f"{name}_weights" for name in READOUTS}
    assert readouts <= zeros
    assert set(found.card["calibrations"][-1]["zeros"]) == readouts


@pytest.mark.parametrize(
    "bad, message",
    [
        ("--output=level.json", "end in .npz"),
        ("--knobs=level", "--knobs must be among"),
        ("--zeros=level", "--zeros must be among"),
        ("--switches=attention", "--switches must be among"),
        ("--switches=gradient_decline", "needs a nominal learning rate"),
        ("--first_step=0.1", "smallest_step must be at most first_step"),
        ("--modules=no_such_module", "--modules must name modules"),
        (f"--output={__file__}/level.npz", "Not a directory|File exists"),
        *(
            (f"--initial_learning_rate={start}", f"must be positive. Received: {start}")
            for start in ("0.0", "-1.0", "nan", "inf")
        ),
        ("--nominal=largest=1", "Received: weights without one"),
        ("--weights=default-v1 --nominal=largest", "NAME=NUMBER. Received: 'largest'"),
        ("--weights=default-v1 --nominal=depth=1", "has the fields"),
        ("--weights=default-v1 --nominal=largest=-1", "a finite number, above 0"),
    ],
)
def test_bad_commands(bad, message, command):
    with pytest.raises(app.UsageError, match=message):
        command("--weights=bootstrap-v1", *bad.split())
