"""Weights on disk and as JSON: verified, and refused where they are damaged."""

import dataclasses
import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

from learned_optimizer import (
    Config,
    HierarchicalRNN,
    Weights,
    load_weights,
    save_weights,
)
from tests.arrays import assert_equal
from tests.learned_optimizer.by_hand import perturbed_weights

SWITCHES = dict(attention=True, level_sizes=(4, 5))


@pytest.fixture
def saved(tmp_path):
    """Path of weights that are in order, and these."""
    path = tmp_path / "mine.npz"
    original = dataclasses.replace(
        perturbed_weights(**SWITCHES), name="mine", initial_learning_rate=0.03
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
        assert_equal(loaded.meta_parameters, original.meta_parameters)
        dtypes = {array.dtype.name for array in loaded.meta_parameters.values()}
        assert dtypes == {"float32"}
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
    assert_equal(copy.meta_parameters, original.meta_parameters)


def test_a_file_called_like_shipped_weights_is_found_by_its_path(
    saved, tmp_path, monkeypatch
):
    path, original = saved
    save_weights(original, tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert load_weights("default").shipped
    assert load_weights("./default").name == "mine"
    assert load_weights("default.npz").name == "mine"


def rewrite_card(**changes):
    """A card with other entries, without those of None."""

    def damage(path):
        card_path = path.with_suffix(".json")
        card = json.loads(card_path.read_text()) | changes
        card = {name: value for name, value in card.items() if value is not None}
        card_path.write_text(json.dumps(card))

    return damage


def write_card(content):
    return lambda path: path.with_suffix(".json").write_bytes(content)


def rewrite_first(change):
    """Another first array, `change(array)`, None for none, with a card for it."""

    def damage(path):
        with np.load(path) as archive:
            arrays = dict(archive)
        first = min(arrays)
        arrays[first] = change(arrays[first])
        if arrays[first] is None:
            del arrays[first]
        np.savez(path, **arrays)
        rewrite_content(path.read_bytes())(path)

    return damage


def add_an_array(path):
    with np.load(path) as archive:
        np.savez(path, **archive, surplus=np.zeros(1))
    rewrite_content(path.read_bytes())(path)


def rewrite_content(content):
    """Another content, with a card that vouches for it."""

    def damage(path):
        path.write_bytes(content)
        rewrite_card(sha256=hashlib.sha256(content).hexdigest())(path)

    return damage


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
        rewrite_first(lambda array: np.array([{}], dtype=object)),
        "npz archive of plain arrays.*(allow_pickle|[Oo]bject arrays)",
    ),
    "an array missing": (rewrite_first(lambda array: None), "Missing: .'LOL/"),
    "an array too many": (add_an_array, "Not part of it: .'surplus'"),
    "another shape": (
        rewrite_first(lambda array: np.zeros(2, np.float32)),
        "must have the shape",
    ),
    "integers": (rewrite_first(lambda array: array.astype(int)), "finite floats"),
    "not finite": (rewrite_first(lambda array: array * np.nan), "finite floats"),
    "a card that is no JSON": (write_card(b"{"), "must be JSON"),
    "a card that is not text": (write_card(b"\xff\xfe\x00"), "must be JSON"),
    "a card that is a list": (write_card(b"[]"), "Missing: .'config', 'sha256'"),
    "no sha256": (rewrite_card(sha256=None), "Missing: .'sha256'"),
    "another sha256": (rewrite_card(sha256="0" * 64), "must have the sha256"),
    "no config": (rewrite_card(config=None), "Missing: .'config'"),
    "a config that is a list": (rewrite_card(config=[1]), "must be an object"),
    "a config of other weights": (rewrite_card(config=Config().to_dict()), "Missing:"),
    "a config that the same numbers fit": (
        rewrite_card(config=Config(**SWITCHES, max_log_learning_rate=1.0).to_dict()),
        "must be the one that 'mine.npz' holds",
    ),
    "an unknown name": (rewrite_card(config={"levels": 3}), "Received: 'levels'"),
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
