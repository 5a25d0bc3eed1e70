"""Weights on disk: found, verified, refused; and how fresh ones are drawn."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from learned_optimizer import (
    Config,
    HierarchicalRNN,
    Weights,
    fresh_weights,
    list_weights,
    load_weights,
    save_weights,
    weights,
)
from tests.learned_optimizer.by_hand import perturbed_weights


@pytest.fixture
def saved(tmp_path):
    """Path of weights that are in order, and these."""
    path = tmp_path / "mine.npz"
    original = dataclasses.replace(
        perturbed_weights(attention=True, level_sizes=(4, 5)),
        name="mine",
        initial_learning_rate=0.03,
    )
    save_weights(original, path, {"trained_by": "nobody"})
    return path, original


def test_what_is_saved_is_loaded(saved):
    path, original = saved
    for name in (path, str(path), str(path.with_suffix(""))):
        loaded = load_weights(name)
        assert loaded.name == "mine" and not loaded.shipped
        assert loaded.config == original.config
        assert loaded.initial_learning_rate == 0.03
        assert loaded.card["trained_by"] == "nobody"
        assert loaded.card["meta_parameters"] == sum(
            array.size for array in original.meta_parameters.values()
        )
        for key, array in original.meta_parameters.items():
            np.testing.assert_array_equal(loaded.meta_parameters[key], array)
            assert loaded.meta_parameters[key].dtype == np.float32
    # Nothing else was left beside the two files.
    assert sorted(os.listdir(path.parent)) == ["mine.json", "mine.npz"]


def test_equal_numbers_under_another_architecture_are_other_weights(saved):
    path, original = saved
    before = json.loads(path.with_suffix(".json").read_text())["sha256"]
    other = dataclasses.replace(original.config, max_log_learning_rate=1.0)
    after = save_weights(dataclasses.replace(original, config=other), path)
    assert before != after == load_weights(path).card["sha256"]
    # Their name and their start are only the card's.
    renamed = dataclasses.replace(original, name="other", initial_learning_rate=0.5)
    assert save_weights(renamed, path) == before


def test_weights_go_through_json(saved):
    _, original = saved
    values = json.loads(json.dumps(original.to_dict()))
    copy = Weights.from_dict(values)
    assert copy.config == original.config
    assert copy.initial_learning_rate == 0.03
    for key, array in original.meta_parameters.items():
        np.testing.assert_array_equal(copy.meta_parameters[key], array)


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


def test_a_file_called_like_shipped_weights_is_found_by_its_path(
    saved, tmp_path, monkeypatch
):
    path, original = saved
    save_weights(original, tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert load_weights("default").shipped
    assert load_weights("./default").name == "mine"
    assert load_weights("default.npz").name == "mine"


# Fresh weights.


def pooled(name, draws=60, **switches):
    """Many draws of one array behind one another."""
    config = Config(**switches)
    return np.stack(
        [fresh_weights(config, seed).meta_parameters[name] for seed in range(draws)]
    ).astype(np.float64)


@pytest.mark.parametrize(
    "name, mean, deviation",
    [
        ("direction_weights", 0, 0.5 / np.sqrt(10)),
        ("mean_square_decay_weights", 0, 0.5 / np.sqrt(10)),
        ("gradient_decay_weights", 0, 0.5 / np.sqrt(10)),
        ("parameter_gates_kernel", 0, 0.5 / np.sqrt(22)),
        ("parameter_candidate_kernel", 0, 0.5 / np.sqrt(22)),
        ("tensor_gates_kernel", 0, 0.5 / np.sqrt(42)),
        ("tensor_candidate_kernel", 0, 0.5 / np.sqrt(42)),
        ("global_gates_kernel", 0, 0.5 / np.sqrt(40)),
        ("tensor_to_parameter_kernel", 0, 0.5 / np.sqrt(20)),
        ("global_to_parameter_kernel", 0, 0.5 / np.sqrt(20)),
        ("global_to_tensor_kernel", 0, 0.5 / np.sqrt(20)),
        ("gradient_shortcut", 1 / 4, 0.1 / np.sqrt(4)),
        ("parameter_start", 0, 1 / np.sqrt(3)),
        ("tensor_start", 0, 1 / np.sqrt(3)),
        ("global_start", 0, 1 / np.sqrt(3)),
    ],
)
def test_fresh_weights_are_distributed_as_in_the_released_code(name, mean, deviation):
    draws = pooled(name)
    error = deviation / np.sqrt(draws.size)
    assert abs(draws.mean() - mean) < 4.5 * error
    assert draws.std() == pytest.approx(deviation, rel=4.5 / np.sqrt(2 * draws.size))
    is_uniform = name.endswith("_start")
    # Excess kurtosis: -1.2 of a uniform distribution, 0 of a normal one.
    centred = (draws - draws.mean()) / draws.std()
    kurtosis = np.mean(centred**4) - 3
    if draws.size > 500:
        assert kurtosis == pytest.approx(-1.2 if is_uniform else 0, abs=0.6)
    if is_uniform:
        assert np.abs(draws).max() <= 1


@pytest.mark.parametrize(
    "name, value",
    [
        ("parameter_gates_bias", 2.2),
        ("tensor_gates_bias", 2.2),
        ("global_gates_bias", 2.2),
        ("parameter_candidate_bias", 0),
        ("tensor_to_parameter_bias", 0),
        ("mean_square_decay_bias", 3.2),
        ("gradient_decay_bias", 2.2),
        ("learning_rate_weights", 0),
        ("learning_rate_bias", 0),
        ("learning_rate_momentum_logit", 3.2),
        ("step_length_offset", -1),
    ],
)
def test_fresh_constants_are_those_of_the_released_code(name, value):
    assert np.all(pooled(name, draws=2) == np.float32(value))


def test_learning_rate_weights_may_start_at_random():
    draws = pooled("learning_rate_weights", zero_learning_rate_weights=False)
    assert draws.std() == pytest.approx(0.5 / np.sqrt(10), rel=0.15)


def test_attention_starts_equal_to_the_update():
    found = fresh_weights(Config(attention=True), seed=3).meta_parameters
    for one, other in (
        ("direction_weights", "attention_weights"),
        ("gradient_shortcut", "attention_shortcut"),
    ):
        np.testing.assert_array_equal(found[one], found[other])


def test_the_seed_says_what_is_drawn():
    one, same, other = (
        HierarchicalRNN(weights=None, seed=seed).weights.meta_parameters
        for seed in (1, 1, 2)
    )
    for name, array in one.items():
        np.testing.assert_array_equal(array, same[name])
    assert np.any(one["direction_weights"] != other["direction_weights"])


# Bad files. Each entry damages weights that are in order.


def rewrite_card(**changes):
    def damage(path):
        card_path = path.with_suffix(".json")
        card = json.loads(card_path.read_text())
        card.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del card[name]
        card_path.write_text(json.dumps(card))

    return damage


def rewrite_arrays(change, **savez):
    """Other arrays, with a card that vouches for them."""

    def damage(path):
        with np.load(path) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(path, **arrays)
        rewrite_content(path.read_bytes())(path)

    return damage


def rewrite_content(content):
    """Another content, with a card that vouches for it."""

    def damage(path):
        path.write_bytes(content)
        rewrite_card(sha256=hashlib.sha256(content).hexdigest())(path)

    return damage


def first_key(arrays):
    return sorted(arrays)[0]


def npy_bytes():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def broken_member(path):
    """A zip archive in order whose compressed member is not."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes() * 20)
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    rewrite_content(bytes(content))(path)


BAD_FILES = {
    "no card": (lambda path: path.with_suffix(".json").unlink(), "need their card"),
    "no file": (lambda path: path.unlink(), "existing .npz file"),
    "tampered": (
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01"),
        "must have the sha256 of its card",
    ),
    "truncated": (
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        "must have the sha256 of its card",
    ),
    "empty": (lambda path: path.write_bytes(b""), "must have the sha256"),
    "truncated, with a card for it": (
        lambda path: rewrite_content(path.read_bytes()[:200])(path),
        "npz archive of plain arrays",
    ),
    "no archive": (rewrite_content(b"no zip"), "npz archive of plain arrays"),
    "a bare array": (rewrite_content(npy_bytes()), "npz archive of plain arrays"),
    "a broken member": (broken_member, "npz archive of plain arrays"),
    "an object array": (
        rewrite_arrays(
            lambda arrays: arrays.update(
                {first_key(arrays): np.array([{"a": 1}], dtype=object)}
            )
        ),
        "npz archive of plain arrays.*(allow_pickle|[Oo]bject arrays)",
    ),
    "an array missing": (
        rewrite_arrays(lambda arrays: arrays.pop(first_key(arrays))),
        "Missing: .'LOL/",
    ),
    "an array too many": (
        rewrite_arrays(lambda arrays: arrays.update(surplus=np.zeros(1))),
        "Not part of it: .'surplus'",
    ),
    "an array of another shape": (
        rewrite_arrays(
            lambda arrays: arrays.update({first_key(arrays): np.zeros(2, np.float32)})
        ),
        "must have the shape",
    ),
    "integers": (
        rewrite_arrays(
            lambda arrays: arrays.update(
                {key: array.astype(int) for key, array in arrays.items()}
            )
        ),
        "finite floats",
    ),
    "not finite": (
        rewrite_arrays(
            lambda arrays: arrays.update(
                {key: array * np.nan for key, array in arrays.items()}
            )
        ),
        "finite floats",
    ),
    "a card that is no JSON": (
        lambda path: path.with_suffix(".json").write_text("{"),
        "must be JSON",
    ),
    "a card that is not text": (
        lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
        "must be JSON",
    ),
    "a card that is a list": (
        lambda path: path.with_suffix(".json").write_text("[]"),
        "Missing: .'config', 'sha256'",
    ),
    "no sha256": (rewrite_card(sha256=None), "Missing: .'sha256'"),
    "another sha256": (rewrite_card(sha256="0" * 64), "must have the sha256"),
    "no config": (rewrite_card(config=None), "Missing: .'config'"),
    "a config that is a list": (rewrite_card(config=[1]), "must be an object"),
    "a config of other weights": (rewrite_card(config=Config().to_dict()), "Missing:"),
    "a config that the same numbers fit": (
        rewrite_card(
            config=Config(
                attention=True, level_sizes=(4, 5), max_log_learning_rate=1.0
            ).to_dict()
        ),
        "must be the one that 'mine.npz' holds",
    ),
    "a config with an unknown name": (
        rewrite_card(config={"levels": 3}),
        "Received: 'levels'",
    ),
    "a negative start": (
        rewrite_card(default_initial_learning_rate=-1.0),
        "must be a positive number. Received: -1.0",
    ),
    "a start that is text": (
        rewrite_card(default_initial_learning_rate="fast"),
        "must be a positive number. Received: 'fast'",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(name, saved):
    damage, words = BAD_FILES[name]
    path, _ = saved
    load_weights(path)
    damage(path)
    with pytest.raises(ValueError, match=words):
        load_weights(path)
    with pytest.raises(ValueError, match=words):
        HierarchicalRNN(weights=path)


@pytest.mark.parametrize("bad", ["", ".", "/", "weights/..", pathlib.Path()])
def test_a_path_without_a_name_is_refused(bad):
    with pytest.raises(ValueError, match="must be .* SavedModel.* Received: "):
        load_weights(bad)


@pytest.mark.parametrize("bad", [3, 2.5, b"default", ["default"], True])
def test_what_is_no_name_is_refused(bad):
    with pytest.raises(TypeError, match="must be a name, a path, `Weights` or None"):
        HierarchicalRNN(weights=bad)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda values: values.pop("config"), "have the keys"),
        (lambda values: values.update(more=1), "have the keys"),
        (lambda values: values.update(config=Config().to_dict()), "have 8349 numbers"),
        (lambda values: values.update(float32_base64="AAAA"), "base64 of float32"),
        (lambda values: values.update(float32_base64="?"), "base64 of float32"),
        (lambda values: values.update(float32_base64=3), "base64 of float32"),
        (lambda values: values.update(initial_learning_rate=0), "positive number"),
        (lambda values: values.update(config={"attention": 1}), "True or False"),
        (lambda values: values.update(config=[1]), "config must be a mapping"),
        (lambda values: values.update(config=None), "Received: None"),
    ],
)
def test_bad_serialized_weights_are_refused(change, words, saved):
    values = saved[1].to_dict()
    change(values)
    with pytest.raises((ValueError, TypeError), match=words):
        Weights.from_dict(values)


@pytest.mark.parametrize("bad", [None, 3, "default", ["name", "config"]])
def test_serialized_weights_that_are_no_mapping_are_refused(bad):
    with pytest.raises(TypeError, match="must be a mapping. Received: "):
        Weights.from_dict(bad)


def test_a_save_that_fails_leaves_what_was_there(saved, monkeypatch):
    path, _ = saved
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(perturbed_weights(), path)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


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
    done = subprocess.run(
        [sys.executable, "-c", IN_A_ZIP_FILE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "package.zip")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    sha256 = load_weights("default").card["sha256"]
    assert done.stdout.split() == [*list_weights(), sha256]
