"""What an optimizer exports of itself, and what it leaves out."""

import keras
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN, load_weights
from learned_optimizer.keras_step import exporting
from tests.learned_optimizer.exported import DEFAULT


def test_what_is_exported_is_what_the_optimizer_has_now(tmp_path):
    optimizer = HierarchicalRNN()
    optimizer.build([keras.Variable(np.ones(3, np.float32))])
    assert optimizer.export(tmp_path / "one") == tmp_path / "one"
    one = load_weights(tmp_path / "one")
    assert one.name == DEFAULT
    assert one.card == load_weights("default").card
    optimizer._meta_learning_rate_bias.assign([0.25])
    optimizer.export(tmp_path / "two")
    two = load_weights(tmp_path / "two")
    assert two.name == f"{DEFAULT}-changed" and two.card == {}
    assert two.meta_parameters["learning_rate_bias"] == [0.25]
    for key, value in two.meta_parameters.items():
        if key != "learning_rate_bias":
            np.testing.assert_array_equal(value, one.meta_parameters[key], key)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.5},
        {"initial_learning_rate": 1e-2},
        {"weight_decay": 0.1},
        {"clipnorm": 1.0, "gradient_accumulation_steps": 4},
        {"use_ema": True, "loss_scale_factor": 8.0},
        {},
    ],
    ids=",".join,
)
def test_settings_that_are_not_exported_are_named(settings, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        exporting.logging, "warning", lambda text, *values: said.append(values)
    )
    HierarchicalRNN(**settings).export(tmp_path / "model")
    named = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    assert [sorted(values[0].split(", ")) for values in said] == (
        [sorted(named.split(", "))] if settings else []
    )


def test_a_subclass_that_needs_arguments_is_exported(tmp_path):
    class Named(HierarchicalRNN):
        def __init__(self, owner, **arguments):
            super().__init__(**arguments)
            self.owner = owner

    path = Named("someone").export(tmp_path / "model")
    assert load_weights(path).name == DEFAULT
