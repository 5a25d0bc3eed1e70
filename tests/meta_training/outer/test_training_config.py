"""Where settings come from: presets, weights and flags, and the folder of a run."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from absl import flags

from learned_optimizer import load_weights, save_weights
from learned_optimizer.rule.nominal_rate import NominalRate
from meta_training import train
from meta_training.optimizers import starting_weights
from meta_training.outer.training_config import FILE, TrainingConfig, preset
from meta_training.tasks.released.algebraic import Bowl
from meta_training.tasks.released.classifiers import SoftmaxRegression

PLAIN = NominalRate()
DEEP = dataclasses.replace(PLAIN, largest=1.0, shallow_tensors=16.0)
OTHER = NominalRate(ratio=0.2, highest=2.0)
DEEP_OF_MEMORY = dataclasses.replace(DEEP, memory=9.0)
OTHER_OF_MEMORY = dataclasses.replace(OTHER, memory=9.0)
V1, V2, BOOTSTRAP = (
    {"init_weights": name} for name in ("default-v1", "default-v2", "bootstrap-v1")
)
# `config.json` of runs before 2026-11-26, and what went with `--train_dir` then.
EARLIER_RUNS = pathlib.Path(__file__).parents[1] / "earlier_runs"
EARLIER_COMMANDS = {
    "default_networks_2": (
        "--preset=default --task_set=default_networks --init_weights=bootstrap-v1 "
        "--outer_steps=100 --validate_every=100"
    ),
    "default_residual_3": (
        "--preset=default --task_set=default_networks --init_weights=default-v1 "
        "--meta_learning_rate=5e-4 --outer_steps=120 --validate_every=60 --seed=3"
    ),
    "released_1": (
        "--preset=released --meta_optimizer=adam --meta_learning_rate=2e-3 "
        "--cosine_decay --clip_value=0 --clip_norm=1 --clip_through_time=0.12 "
        "--min_window_steps=50 --window_steps=50 --max_window_steps=50 "
        "--mean_horizon=1000 --low_learning_rate=3e-4 --high_learning_rate=3e-2 "
        "--nospread_over_elements --outer_steps=1200 --novalidate "
        "--checkpoint_every=20"
    ),
}


@pytest.fixture
def config_of():
    """The settings that the command line of `train` gives, as a function of it."""

    def config(*arguments):
        values = flags.FlagValues()
        train.define_train_flags(values)
        values(["train", "--train_dir=unused", *arguments])
        return train.config_from_flags(values=values)

    return config


def nominal_at_the_start(config):
    """The nominal rate of the architecture that a run starts with."""
    start = starting_weights(
        config.optimizer, config.init_weights, config.nominal, config.seed
    )
    return start.optimizer.config.nominal


def test_the_nominal_rate_of_the_weights_that_the_cases_start_from():
    assert load_weights("default-v2").config.nominal == DEEP
    assert load_weights("default-v1").config.nominal == PLAIN
    assert load_weights("bootstrap-v1").config.nominal is None


@pytest.mark.parametrize(
    "name, changes, wanted",
    [
        ("default", {}, PLAIN),
        ("default", {"ratio": 0.2, "highest": 2.0}, OTHER),
        ("default", V2, DEEP),
        (
            *("default", V2 | {"ratio": 0.2, "highest": 2.0}),
            dataclasses.replace(DEEP, ratio=0.2, highest=2.0),
        ),
        ("default", V2 | {"nominal": None}, DEEP),
        ("default", V2 | {"nominal": OTHER}, OTHER),
        ("default", V2 | {"nominal": OTHER, "memory": 9.0}, OTHER_OF_MEMORY),
        ("default", V1, PLAIN),
        ("default", V1 | {"largest": 1, "shallow_tensors": 16}, DEEP),
        ("default", BOOTSTRAP, PLAIN),
        ("default", BOOTSTRAP | {"nominal": None}, None),
        ("released", {}, None),
        ("released", V2, DEEP),
        (*("released", V2 | {"largest": 3.0}), dataclasses.replace(DEEP, largest=3.0)),
        ("released", BOOTSTRAP, None),
    ],
)
def test_the_nominal_rate_of_a_preset(name, changes, wanted):
    assert nominal_at_the_start(preset(name, **changes)) == wanted


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        ("--init_weights=default-v2", DEEP),
        ("--init_weights=default-v2 --memory=9", DEEP_OF_MEMORY),
        ("--init_weights=default-v2 --largest=0 --shallow_tensors=0", PLAIN),
        ("--init_weights=default-v2 --nominal", DEEP),
        ("--init_weights=default-v2 --nonominal", DEEP),
        ("--init_weights=default-v1", PLAIN),
        ("--init_weights=bootstrap-v1", PLAIN),
        ("--init_weights=bootstrap-v1 --nonominal", None),
        ("--preset=released --nominal --init_weights=default-v2", DEEP),
        ("--preset=released --nominal --init_weights=bootstrap-v1", PLAIN),
        ("--preset=released --nominal --ratio=0.2 --highest=2", OTHER),
    ],
)
def test_the_nominal_rate_of_a_command_line(config_of, arguments, wanted):
    assert nominal_at_the_start(config_of(*arguments.split())) == wanted


def test_the_nominal_rate_of_weights_by_path(config_of, tmp_path):
    weights = load_weights("default-v1")
    config = dataclasses.replace(weights.config, nominal=OTHER)
    path = tmp_path / "mine.npz"
    save_weights(dataclasses.replace(weights, config=config, shipped=False), path)
    # Their own ratio, which no flag gives, stays under --nominal, too.
    for more in ([], ["--nominal"]):
        found = config_of(f"--init_weights={path}", *more)
        assert nominal_at_the_start(found) == OTHER


def test_the_nominal_rate_is_what_a_run_goes_on_with(tmp_path):
    preset("default", **V2).write_or_verify(tmp_path)
    written = json.loads((tmp_path / FILE).read_text())
    assert written["nominal"] == dataclasses.asdict(DEEP)
    preset("default", **V2).write_or_verify(tmp_path)
    other = preset("default", **V2, largest=2.0)
    with pytest.raises(ValueError, match="nominal .*'largest': 1.0.* there"):
        other.write_or_verify(tmp_path)


@pytest.mark.parametrize("name, command", EARLIER_COMMANDS.items())
def test_an_earlier_run_goes_on_by_its_command(config_of, tmp_path, name, command):
    arguments = command.split()
    shutil.copy(EARLIER_RUNS / f"{name}.json", tmp_path / FILE)
    config_of(*arguments).write_or_verify(tmp_path)
    with pytest.raises(ValueError, match=r"the settings of its run.*seed \(. there"):
        config_of(*arguments, "--seed=99").write_or_verify(tmp_path)


def test_a_switch_that_the_older_run_did_not_have_is_refused(config_of, tmp_path):
    shutil.copy(EARLIER_RUNS / "default_networks_2.json", tmp_path / FILE)
    flags = "--task_set=default_networks --init_weights=bootstrap-v1 --largest=1"
    with pytest.raises(ValueError, match="nominal .*'largest': None.* there"):
        config_of(*flags.split()).write_or_verify(tmp_path)


def test_zero_switches_bounds_off(config_of):
    config = config_of("--clip_norm=0", "--clip_through_time=0", "--objective_rows=0")
    assert config.clip_norm is None and config.unroll.clip_through_time is None
    assert config.objective_rows is None
    assert np.isclose(config_of("--clip_norm=2").clip_norm, 2.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mean_horizon": -1.0}, "mean_horizon must be .* above 0"),
        ({"mean_horizon": 1e300}, "mean_horizon must be .* below 1000000000000"),
        ({"outer_steps": 0}, "outer_steps must be a whole number, 1 or more"),
        ({"seed": 1.0}, "seed must be a whole number"),
        ({"estimator": "none"}, "estimator must be one of pes, truncated"),
        ({"meta_optimizer": "none"}, "meta_optimizer must be one of adam, rmsprop"),
        ({"meta_objective": "none"}, "meta-objective must be one of linear"),
        ({"optimizer": "adam"}, "trainable optimizer must be one of"),
        ({"optimizer": "trainable_adam", "ratio": 0.1}, "optimizer must be hier"),
        ({"redraw_probability": 1.5}, "redraw_probability must be .* at most 1"),
        ({"max_window_steps": 2}, "min_window_steps must be at most max_window_steps"),
        ({"mean_window_steps": 2.5}, "must be at most mean_window_steps"),
        ({"low_learning_rate": 0.0}, "low_learning_rate must be .* above 0"),
        ({"low_learning_rate": 1.0}, "must be at most high_learning_rate"),
        ({"high_learning_rate": float("inf")}, "must be a finite number"),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number, above 0"),
        ({"clip_value": float("nan")}, "clip_value must be a finite number"),
        ({"objective_rows": -3}, "objective_rows must be .* 1 or more"),
        ({"divergence_bound": -1.0}, "divergence_bound must be .* above 0"),
        ({"scale_range": 0.5}, "scale_range must be .* 1 or more"),
        ({"scale_jitter": -1.0}, "scale_jitter must be .* 0 or more"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        preset("default", **changes)


def test_how_much_a_task_counts_goes_by_what_is_random_in_it():
    config = preset(
        "default", deterministic_weight=1.0, noisy_weight=2.0, minibatch_weight=5.0
    )
    cases = {
        Bowl(5.0): 1.0,
        SoftmaxRegression(2, rows=8): 1.0,
        Bowl(5.0, noise_stdev=0.3): 2.0,
        Bowl(5.0, gradient_zero_probability=0.5): 2.0,
        SoftmaxRegression(2, rows=8, batch_size=4): 5.0,
        # Of two things the minibatches decide.
        SoftmaxRegression(2, rows=8, batch_size=4, noise_stdev=0.3): 5.0,
    }
    assert {task: config.weight(task) for task in cases} == cases
    kinds = list(cases)[::2]
    assert [TrainingConfig().weight(task) for task in kinds] == [1.0, 1.0, 1.0]
    assert [preset("default").weight(task) for task in kinds] == [0.5, 1.0, 2.0]


def test_what_may_change_is_no_other_run(tmp_path):
    preset("default").write_or_verify(tmp_path)
    preset("default", outer_steps=50).write_or_verify(tmp_path)
    with pytest.raises(ValueError, match=r"seed \(0 there, 1 now\)"):
        preset("default", seed=1).write_or_verify(tmp_path)


def test_presets():
    released = preset("released")
    assert released.meta_optimizer == "rmsprop" and released.clip_value == 1e4
    assert released.unroll.clip_through_time is None
    assert len(released.tasks()) == 101
    default = preset("default", copies=2)
    assert len(default.tasks()) == 302
    assert default.nominal and not default.unroll.second_derivatives
    assert preset("default", optimizer="trainable_adam").nominal is None
    assert TrainingConfig(**{"task_set": "released"}).copies == 1
    with pytest.raises(ValueError, match="preset must be one of .* Received: 'none'"):
        preset("none")
