"""The data of held-out networks are what they say, and stay what they are."""

import heapq

import pytest

from meta_training.held_out import data as data_module
from meta_training.held_out import network_group
from meta_training.held_out.data import load_data


@pytest.mark.parametrize(
    "name, inputs, targets",
    [
        ("breast_cancer", 0.996058, 0.483766),
        ("spirals", 1.04037, 1.72400),
        ("drawings", 0.427796, 2.61156),
        ("flat_drawings", 0.444835, 2.56822),
        ("digits", 0.376119, 2.86450),
        ("diabetes", 1.00812, 2.00063),
    ],
)
def test_data_stay_those_of_published_figures(name, inputs, targets):
    """By their standard deviations."""
    data = load_data(name)
    found = [data.training_inputs.std(), data.training_targets.std()]
    assert found == pytest.approx([inputs, targets], rel=1e-4)


def test_text_is_windows_and_what_comes_next():
    data = load_data("text")
    characters = sorted(set(heapq.__about__))
    window = "".join(characters[code] for code in data.training_inputs[100].argmax(-1))
    place = heapq.__about__.index(window)
    assert characters[data.training_targets[100]] == heapq.__about__[place + 20]
    last = "".join(characters[code] for code in data.test_inputs[-1].argmax(-1))
    assert heapq.__about__.endswith(last + characters[data.test_targets[-1]])


def test_another_text_is_refused(monkeypatch):
    monkeypatch.setattr(heapq, "__about__", "Heaps")
    load_data.cache_clear()
    with pytest.raises(ValueError, match="of sha256 .* Received: .*another Python"):
        load_data("text")


def test_missing_mnist_is_refused_and_says_what_to_do(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=tmp_path))
    data_module._read_mnist.cache_clear()
    load_data.cache_clear()
    with pytest.raises(ValueError, match="MNIST must .*TFDS_DATA_DIR .*Received: "):
        load_data("mnist")
    assert network_group("final")[0].rows == 60_000
