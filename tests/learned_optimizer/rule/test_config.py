"""Every switch of the architecture: what it is called, and what is refused."""

import dataclasses
import json

import pytest

from learned_optimizer import Config
from learned_optimizer.rule.config import LATER_SWITCHES, RELEASED_NAMES
from tests.learned_optimizer import golden

NO_RATES = dict(dynamic_output_scale=False, relative_learning_rate=False)


def test_the_defaults_are_the_released_ones_but_for_the_global_rnn():
    config = Config()
    released = golden.GoldenCase("a_pert").config
    assert config == dataclasses.replace(released, global_rnn_input="all_tensors")
    assert (config.level_sizes, config.inputs, config.levels) == ((10, 20, 20), 12, 3)
    assert config.nominal is None
    assert not any(getattr(config, name) for name in LATER_SWITCHES)


@pytest.mark.parametrize("name", golden.case_names())
def test_released_configs_are_read(name):
    case = golden.GoldenCase(name)
    assert case.config.inputs == case.expected["rnn_input_width"]


def test_a_config_survives_json():
    switches = dict(attention=True, max_log_learning_rate=2, learnable_decay=False)
    config = Config(level_sizes=(3, 4), **switches)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Config(level_sizes=[3, 4]) == Config(level_sizes=(3, 4))


def test_released_names_say_the_same():
    released = {
        "level_sizes": [10, 20],
        "use_relative_lr": False,
        "use_problem_lr_mean": False,
        "use_attention": True,
        "num_gradient_scales": 2,
        "max_log_lr": 5,
        "global_rnn_input": "mean_over_tensors",
    }
    assert Config.from_dict(released) == Config(
        level_sizes=(10, 20),
        relative_learning_rate=False,
        learning_rate_mean="tensor",
        attention=True,
        gradient_timescales=2,
        max_log_learning_rate=5.0,
        global_rnn_input="all_tensors",
    )
    fields = {field.name for field in dataclasses.fields(Config)}
    assert set(RELEASED_NAMES.values()) <= fields


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        *(
            (dict(level_sizes=sizes), ValueError, "one to three positive integers")
            for sizes in ((), (1, 2, 3, 4), (0,), (-1, 2), (1.5,), (True,), 10, "10")
        ),
        *(
            (dict(gradient_timescales=number), ValueError, "positive integer")
            for number in (0, -1, 2.0, "4", True, None)
        ),
        *(
            (dict(max_log_learning_rate=limit), ValueError, "finite number above -33")
            for limit in (float("nan"), float("inf"), -33.0, "33", True, None)
        ),
        *(
            ({x: 1}, TypeError, f"`{x}` must be True or False. Received: {x}=1")
            for x in ("attention", "learnable_start", "log_mean_squares")
        ),
        (dict(learning_rate_mean="all"), ValueError, "must be one of .*'problem'"),
        (dict(global_rnn_input="first"), ValueError, "must be one of .*'all_tensors'"),
        (dict(global_rnn_input=["x"]), ValueError, "must be one of"),
        (
            dict(dynamic_output_scale=False),
            ValueError,
            "`relative_learning_rate` needs",
        ),
        *(
            (NO_RATES | {x: True}, ValueError, f"`{x}` needs a learning rate")
            for x in ("extreme_indicator", "learning_rate_shortcut")
        ),
        (dict(gradient_decline=True), ValueError, "decline` needs a nominal"),
        (dict(horizon_input=True), ValueError, "input` needs a nominal"),
        (
            dict(horizon_input=True, nominal={}, level_sizes=(4,)),
            ValueError,
            "needs an RNN of tensors",
        ),
    ],
)
def test_bad_configs_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Config(**arguments)
    with pytest.raises(error, match=words):
        Config.from_dict(arguments)


@pytest.mark.parametrize("bad", [None, 3, "attention", ["attention"], [1]])
def test_what_is_no_mapping_is_refused(bad):
    with pytest.raises(TypeError, match="config must be a mapping .* Received: "):
        Config.from_dict(bad)


def test_bad_dicts_are_refused():
    with pytest.raises(ValueError, match="has the fields .* Received: 'levels'"):
        Config.from_dict({"levels": 3})
    with pytest.raises(ValueError, match="Received twice: 'attention'"):
        Config.from_dict({"attention": True, "use_attention": True})
