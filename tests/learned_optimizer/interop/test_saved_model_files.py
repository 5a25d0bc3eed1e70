"""Folders of exported weights: written atomically, read back, refused if damaged."""

import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN, load_weights
from learned_optimizer.interop.saved_model_files import CARD, export_weights
from tests.arrays import assert_equal
from tests.conftest import run_python
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.exported import (
    CONFIGS,
    DEFAULT,
    NOMINAL,
    SHIPPED,
    foreign_model,
    weights_of,
)


@pytest.mark.parametrize("name", [*SHIPPED, "attention, nominal"])
def test_it_is_small_and_names_no_path(name, export):
    files = [path for path in export(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 350_000
    for path in files:
        assert os.fspath(export(name).parent).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", [*SHIPPED, *CONFIGS])
def test_it_is_read_back(name, export):
    original = weights_of(name)
    for path in (export(name), os.fspath(export(name))):
        optimizer = HierarchicalRNN(weights=path)
        found = optimizer.weights
        assert found.name == original.name and not found.shipped
        assert found.config == original.config
        assert found.initial_learning_rate == original.initial_learning_rate
        assert found.card == original.card
        assert_equal(found.meta_parameters, original.meta_parameters)
    # Its configuration holds the numbers, and needs the folder no longer.
    copy = HierarchicalRNN.from_config(optimizer.get_config())
    np.testing.assert_array_equal(copy.weights.to_flat(), original.to_flat())


@pytest.mark.backend("jax")
@pytest.mark.slow
def test_it_is_read_under_another_backend(tmp_path):
    program = (
        "import sys; from learned_optimizer import load_weights; "
        "from learned_optimizer.export import export_weights; "
        "export_weights(load_weights('default'), sys.argv[1])"
    )
    run_python("-c", program, tmp_path / "model").check_returncode()
    found = HierarchicalRNN(weights=tmp_path / "model").weights
    np.testing.assert_array_equal(found.to_flat(), load_weights("default").to_flat())
    with pytest.raises(ValueError, match="must be 'tensorflow'.*Received: 'jax'"):
        HierarchicalRNN().export(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def change_card(change=lambda card: None, **changes):
    def damage(path):
        card = json.loads((path / CARD).read_text())
        change(card)
        (path / CARD).write_text(json.dumps(card | changes))

    return damage


def write_card(text):
    return lambda path: (path / CARD).write_text(text)


def change_variables(path):
    """Another model's numbers, in order by themselves."""
    other = export_weights(perturbed_weights(nominal=NOMINAL), path.parent / "other")
    shutil.rmtree(path / "variables")
    shutil.copytree(other / "variables", path / "variables")


def remove(name):
    def damage(path):
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def flip_a_bit(path):
    file = path / "variables" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(bytes(content))


def foreign_model_with_our_card(path):
    card = (path / CARD).read_text()
    foreign_model(path)
    (path / CARD).parent.mkdir()
    (path / CARD).write_text(card)


BAD_FOLDERS = {
    "another's SavedModel": (foreign_model, "must be a SavedModel that Hier.*Received"),
    "another's with our card": (
        foreign_model_with_our_card,
        "must be a checkpoint with",
    ),
    "an empty folder": (
        lambda path: (shutil.rmtree(path), path.mkdir()),
        "must be a SavedModel that Hier",
    ),
    "no card": (remove(CARD), "assets.extra/card.json"),
    "no program": (remove("saved_model.pb"), "with saved_model.pb"),
    "no variables": (remove("variables"), "must be a checkpoint"),
    "a bit of the variables": (flip_a_bit, "must be a checkpoint with.*[Cc]hecksum"),
    "other variables": (change_variables, "must have the sha256 that the card names"),
    "another name": (change_card(name="default-v9"), "must have the sha256"),
    "another rate": (change_card(initial_learning_rate=0.1), "must have the sha256"),
    "another nominal rate": (
        change_card(lambda card: card["config"]["nominal"].update(ratio=0.06)),
        "must have the sha256",
    ),
    "another history": (change_card(card={}), "must have the sha256"),
    "another format": (change_card(format="other/1"), "format.*Received.*'other/1'"),
    "more in the card": (change_card(more=1), "must be an object of the keys"),
    "a card that is no JSON": (write_card("{"), "must be JSON"),
    "a card that is a list": (
        write_card("[]"),
        "must be an object of the keys.*Received: list",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_refused(name, export, tmp_path):
    damage, words = BAD_FOLDERS[name]
    path = tmp_path / "model"
    shutil.copytree(export(DEFAULT), path)
    load_weights(path)
    damage(path)
    with pytest.raises(ValueError, match=words):
        HierarchicalRNN(weights=path)


def contents(folder):
    """Every file below a folder."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_export_takes_the_place_of_an_earlier_one(export, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(export("bootstrap-v1"), path)
    (path / "assets.extra" / "old").write_text("of the earlier one")
    export_weights(weights_of(DEFAULT), path)
    assert load_weights(path).name == DEFAULT
    assert set(contents(path)) == set(contents(export(DEFAULT)))
    # Nothing is left beside it.
    assert os.listdir(path.parent) == ["model"]


@pytest.mark.parametrize("what, exists", [("saving", False), ("the card", True)])
def test_an_export_that_fails_leaves_what_was_there(
    what, exists, export, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    if exists:
        shutil.copytree(export("bootstrap-v1"), path)
    before = contents(tmp_path)

    def fail(*_, **__):
        raise OSError("disk full")

    if what == "saving":
        monkeypatch.setattr(tf.saved_model, "save", fail)
    else:
        monkeypatch.setattr(pathlib.Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        export_weights(weights_of(DEFAULT), path)
    monkeypatch.undo()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("what", ["folder", "file", "SavedModel"])
def test_what_is_no_export_is_not_replaced(what, tmp_path):
    path = tmp_path / "mine"
    if what == "file":
        path.write_text("years of work")
    else:
        path.mkdir()
        (path / "thesis.txt").write_text("years of work")
    if what == "SavedModel":
        foreign_model(path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="new or empty folder.*Received: '.*mine'"):
        HierarchicalRNN().export(path)
    assert contents(tmp_path) == before


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
    changed = {"learning_rate_bias": np.array([0.25])}
    assert_equal(two.meta_parameters, one.meta_parameters | changed)


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
def test_settings_that_are_not_exported_are_named(settings, tmp_path, warned):
    HierarchicalRNN(**settings).export(tmp_path / "model")
    named = sorted(f"{name}={value!r}" for name, value in settings.items())
    found = [sorted(value.split(", ")) for _, value, *_ in warned]
    assert found == ([named] if settings else [])


def test_a_subclass_that_needs_arguments_is_exported(tmp_path):
    class Named(HierarchicalRNN):
        def __init__(self, owner, **arguments):
            super().__init__(**arguments)
            self.owner = owner

    path = Named("someone").export(tmp_path / "model")
    assert load_weights(path).name == DEFAULT
