"""Checkpoints of the released code: read, written, refused.

They are written and read here with TensorFlow 1's own `Saver`, under the variable names
and shapes that the golden data list.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from learned_optimizer import Config, load_weights, released
from learned_optimizer.rule.meta_parameters import to_released_names
from tests.arrays import assert_equal
from tests.commands import run_command
from tests.golden import read_golden
from tests.learned_optimizer import golden
from tests.learned_optimizer.by_hand import perturbed_weights

MANIFEST = read_golden.load_manifest(golden.FOLDER)
v1 = tf.compat.v1
variable_of = functools.partial(v1.Variable, use_resource=False)


def switches_of(config):
    """In what an architecture is not the released one."""
    released_config = dataclasses.asdict(released.RELEASED_CONFIG)
    values = dataclasses.asdict(config)
    return {k: v for k, v in values.items() if v != released_config[k]}


def save(arrays, prefix):
    """Writes a checkpoint as the released training does, with slots and a step."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, array in arrays.items():
            variable = variable_of(array, name=name)
            for slot in ("RMSProp", "RMSProp_1"):
                variable_of(tf.ones_like(variable), name=f"{name}/{slot}")
        variable_of(17, name="global_step")
        variable_of([1.0], name="parameter_0")
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, os.fspath(prefix), global_step=17)


def restore(prefix, shapes):
    """Reads a checkpoint as the released tests do, its variables alone."""
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {n: variable_of(tf.zeros(s), name=n) for n, s in shapes.items()}
        v1.train.Saver(var_list=list(variables.values())).restore(session, prefix)
        return session.run(variables)


def shapes_of(case):
    """`{released name: shape}` of a golden case."""
    layout = MANIFEST["meta_layouts"][MANIFEST["update_rule"][case]["meta_layout"]]
    return {name: tuple(shape) for name, shape, _ in layout}


@pytest.mark.parametrize(
    "name", ["a_pert", "b_pert_multi", "c_pert", "f_extreme_indicator_on"]
)
def test_a_checkpoint_gives_the_weights_of_the_golden_data(name, tmp_path):
    case = golden.GoldenCase(name)
    prefix = save(case.expected["meta"], tmp_path / "model.ckpt")
    weights = released.read_checkpoint(prefix, **switches_of(case.config))
    assert weights.card["global_step"] == 17
    assert weights.config == case.config
    assert_equal(weights.meta_parameters, case.meta_parameters)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        dict(attention=True, gradient_timescales=3),
        dict(level_sizes=(4, 6), learnable_input_decay=False),
        dict(level_sizes=(1,), gradient_shortcut=False, log_mean_squares=False),
        dict(dynamic_output_scale=False, relative_learning_rate=False),
        dict(gradient_timescales=1, learnable_decay=False),
    ],
    ids=str,
)
def test_weights_go_there_and_back(switches, tmp_path):
    weights = perturbed_weights(global_rnn_input="last_tensor", **switches)
    prefix = released.write_checkpoint(weights, tmp_path / "new" / "model.ckpt-3")
    # Where the released code looks for it.
    assert tf.train.latest_checkpoint(os.fspath(tmp_path / "new")) == prefix
    assert sorted(os.listdir(tmp_path / "new")) == [
        "checkpoint",
        "model.ckpt-3.data-00000-of-00001",
        "model.ckpt-3.index",
    ]
    wanted = to_released_names(weights.config, weights.meta_parameters)
    shapes = {name: array.shape for name, array in wanted.items()}
    assert_equal(restore(prefix, shapes), wanted)
    for path in (prefix, tmp_path / "new"):
        back = released.read_checkpoint(path, **switches)
        assert back.config == weights.config
        assert_equal(back.meta_parameters, weights.meta_parameters)


def test_initial_states_that_are_not_stored_are_drawn(tmp_path):
    arrays = dict(golden.GoldenCase("a_pert").expected["meta"])
    for level in range(3):
        del arrays[f"LOL/Level{level}_RNN/init_vector"]
    prefix = save(arrays, tmp_path / "model")
    with pytest.raises(ValueError, match="missing .'LOL/Level0_RNN/init_vector'"):
        released.read_checkpoint(prefix)
    one, same, other = (
        released.read_checkpoint(prefix, learnable_start=False, seed=seed)
        for seed in (1, 1, 2)
    )
    assert not one.config.learnable_start
    np.testing.assert_array_equal(one.to_flat(), same.to_flat())
    for level in ("parameter", "tensor", "global"):
        start = one.meta_parameters[f"{level}_start"]
        assert np.all(np.abs(start) < 1)
        assert np.all(start != other.meta_parameters[f"{level}_start"])


GATES = "LOL/PerTensor/Layer0_RNN/BiasGRUCell/gates/Affine/Matrix"
UPDATE = "LOL/update_weights"


@pytest.mark.parametrize(
    "gone, changed, words",
    [
        (UPDATE, {}, rf"missing \['{UPDATE}'\], misshapen \[\], not part of it \[\]"),
        ("Level1_RNN", {}, r"missing \['LOL/Level1_RNN"),
        ("LOL", {}, rf"missing \['LOL/Layer2_.*'{UPDATE}'\]"),
        (
            *(None, {UPDATE: (10, 2)}),
            rf"misshapen \['{UPDATE}' of shape \(10, 2\) instead of \(10, 1\)\]",
        ),
        (
            *(None, {GATES: ()}),
            rf"misshapen \['{GATES}' of shape \(\) instead of \(22, 20\)\]",
        ),
        (None, {"LOL/more": (1,)}, r"not part of it \['LOL/more'\]"),
    ],
)
def test_missing_and_misshapen_variables_are_named(gone, changed, words):
    shapes = shapes_of("a_init")
    released.check_variables(shapes, released.RELEASED_CONFIG)
    left = {name: shapes[name] for name in shapes if gone is None or gone not in name}
    with pytest.raises(ValueError, match=words):
        released.check_variables(left | changed, released.RELEASED_CONFIG)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    arrays = golden.GoldenCase("a_pert").expected["meta"]
    prefix = pathlib.Path(save(arrays, tmp_path / "model"))
    data = prefix.with_name(prefix.name + ".data-00000-of-00001")
    content = data.read_bytes()
    data.write_bytes(bytes(byte ^ 255 for byte in content))
    with pytest.raises(ValueError, match="must be whole"):
        released.read_checkpoint(prefix)
    bad = {name: array * np.nan for name, array in arrays.items()}
    with pytest.raises(ValueError, match="'LOL/.*must be of finite floats"):
        released.read_checkpoint(save(bad, tmp_path / "nan"))
    for path in (tmp_path / "nothing", tmp_path / "empty", data):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="must be the prefix of a TensorFlow"):
            released.read_checkpoint(path)


def test_what_the_released_code_does_not_have_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="without a nominal learning rate. Received"):
        released.write_checkpoint(load_weights("default-v1"), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_fails_is_not_there(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("learned_optimizer.released.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        released.write_checkpoint(load_weights("bootstrap-v1"), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_the_switches_to_read_it_with_are_said(tmp_path, caplog):
    switches = dict(learning_rate_shortcut=True, max_log_learning_rate=5.0)
    weights = perturbed_weights(**switches)
    with caplog.at_level("WARNING"):
        prefix = released.write_checkpoint(weights, tmp_path / "model")
    said = "learning_rate_shortcut=True, max_log_learning_rate=5.0"
    assert f"give: {said}, global_rnn_input='all_tensors'" in caplog.text
    again = released.read_checkpoint(prefix, global_rnn_input="all_tensors", **switches)
    assert again.config == weights.config


def test_a_checkpoint_takes_the_place_of_none(tmp_path):
    prefix = released.write_checkpoint(load_weights("bootstrap-v1"), tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="must be new. Received: '.*model'"):
        released.write_checkpoint(load_weights("released-v1"), prefix)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    # What a stop between the two files leaves is no checkpoint, and is no obstacle.
    (tmp_path / "model.index").unlink()
    released.write_checkpoint(load_weights("released-v1"), prefix)
    found = released.read_checkpoint(prefix, global_rnn_input="all_tensors").to_flat()
    np.testing.assert_array_equal(found, load_weights("released-v1").to_flat())


command = functools.partial(run_command, released)


def test_the_command_goes_there_and_back(tmp_path, capsys):
    case = golden.GoldenCase("f_lr_shortcut_on")
    prefix = save(case.expected["meta"], tmp_path / "model")
    path = tmp_path / "mine.npz"
    command(
        *(f"--checkpoint={prefix}", f"--output={path}", "--learning_rate_shortcut"),
        *("--max_log_learning_rate=5", "--global_rnn_input=all_tensors"),
        "--initial_learning_rate=0.02",
    )
    assert "learning_rate_shortcut=True" in capsys.readouterr().out
    weights = load_weights(path)
    assert weights.name == "mine" and weights.initial_learning_rate == 0.02
    assert weights.config == dataclasses.replace(
        case.config, max_log_learning_rate=5.0, global_rnn_input="all_tensors"
    )
    command(f"--weights={path}", f"--output_checkpoint={tmp_path / 'back'}")
    found = restore(os.fspath(tmp_path / "back"), shapes_of("f_lr_shortcut_on"))
    assert_equal(found, dict(case.expected["meta"]))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "Flags are --checkpoint and --output, or"),
        (["--checkpoint=a"], "Flags are"),
        (["--checkpoint=a", "--output=b", "--weights=c"], "Flags are"),
        (["--checkpoint=a", "--output_checkpoint=b"], "Flags are"),
        (["--weights=no", "--output_checkpoint=b"], "must be the folder of an"),
        (["--checkpoint=no", "--output=b"], "must be the prefix of a TensorFlow"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, words):
    with pytest.raises(SystemExit, match=f"^released: .*{words}"):
        command(*arguments)


def test_what_tensorflow_cannot_write_is_one_line(tmp_path, monkeypatch):
    def fail(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "disk\n full")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", fail)
    with pytest.raises(SystemExit, match="^released: disk full$"):
        command("--weights=bootstrap-v1", f"--output_checkpoint={tmp_path / 'model'}")


def test_every_switch_of_a_config_has_a_flag():
    values = flags.FlagValues()
    released.define_flags(values)
    fields = {field.name for field in dataclasses.fields(Config)}
    # The released code has no nominal rate.
    assert fields - set(values) == {"nominal"}
