"""Weights by name: shipped ones, aliases, and what is no name."""

import hashlib
import pathlib
import zipfile

import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN, list_weights, load_weights, weights
from tests.arrays import assert_equal
from tests.conftest import output_of


def test_shipped_weights_are_named_by_version_and_an_alias():
    names = list_weights()
    assert "default" in names and "bootstrap-v1" in names
    assert names == sorted(names)
    for name in names:
        loaded = load_weights(name)
        assert loaded.shipped
        assert loaded.name == weights.ALIASES.get(name, name)
        assert loaded.initial_learning_rate > 0
        assert loaded.card.get("trained_by") or loaded.card["commands"]
        # A shipped file is what its card says, whoever asks.
        content = (weights.FOLDER / f"{loaded.name}.npz").read_bytes()
        assert hashlib.sha256(content).hexdigest() == loaded.card["sha256"]
    assert set(weights.ALIASES) == {"default", "no_neural_networks", "released"}
    count = sum(x.size for x in load_weights("bootstrap-v1").meta_parameters.values())
    assert count == 8349


def test_an_alias_is_resolved_when_the_optimizer_is_made(monkeypatch):
    newest = weights.ALIASES["default"]
    assert newest.startswith("default-v")
    assert HierarchicalRNN().get_config()["weights"] == newest
    monkeypatch.setattr(weights, "ALIASES", {"default": "missing-v9"})
    with pytest.raises(ValueError, match="shipped name"):
        HierarchicalRNN()
    assert HierarchicalRNN(weights="bootstrap-v1").weights.shipped


@pytest.mark.parametrize("bad", ["", ".", "/", "weights/..", pathlib.Path()])
def test_a_path_without_a_name_is_refused(bad):
    with pytest.raises(ValueError, match="must be .* SavedModel.* Received: "):
        load_weights(bad)


@pytest.mark.parametrize("bad", [3, 2.5, b"default", ["default"], True])
def test_what_is_no_name_is_refused(bad):
    with pytest.raises(TypeError, match="must be a name, a path, `Weights` or None"):
        HierarchicalRNN(weights=bad)


IN_A_ZIP_FILE = """
import keras, learned_optimizer
assert ".zip" in learned_optimizer.__file__, learned_optimizer.__file__
variable = keras.Variable([1.0, 2.0])
optimizer = learned_optimizer.HierarchicalRNN()
optimizer.apply([keras.ops.ones(2)], [variable])
assert keras.ops.convert_to_numpy(variable)[0] < 1
print(*learned_optimizer.list_weights(), optimizer.weights.card["sha256"])
"""


def test_shipped_weights_are_found_in_a_zip_file(tmp_path):
    package = pathlib.Path(weights.__file__).parent
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in package.rglob("*.*"):
            if path.suffix in (".py", ".npz", ".json"):
                archive.write(path, path.relative_to(package.parent))
    path = str(tmp_path / "package.zip")
    output = output_of("-c", IN_A_ZIP_FILE, cwd=tmp_path, PYTHONPATH=path)
    assert output.split() == [*list_weights(), load_weights("default").card["sha256"]]


def test_the_seed_says_what_is_drawn():
    one, same, other = (
        HierarchicalRNN(weights=None, seed=seed).weights.meta_parameters
        for seed in (1, 1, 2)
    )
    assert_equal(one, same)
    assert np.any(one["direction_weights"] != other["direction_weights"])
