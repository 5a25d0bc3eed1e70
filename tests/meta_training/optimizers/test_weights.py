"""Weights of all trainable optimizers as files."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN
from meta_training.evaluate import find_weights
from meta_training.optimizers import (
    CoordinatewiseRNN,
    GlobalLearningRate,
    LearningRateSchedule,
    TrainableAdam,
    fresh_trained,
    list_optimizers,
    load_trained,
    save_trained,
    starting_weights,
    trainable_optimizer,
)
from tests.arrays import assert_equal


@pytest.mark.parametrize(
    "optimizer",
    [
        *map(trainable_optimizer, list_optimizers()),
        CoordinatewiseRNN((3,), learnable_decay=False),
        LearningRateSchedule(num_steps=4),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_weights_come_back(tmp_path, optimizer):
    weights = fresh_trained(optimizer, seed=3)
    save_trained(weights, tmp_path / "w.npz", {"note": "x"})
    loaded = load_trained(tmp_path / "w")
    assert loaded.optimizer == optimizer and loaded.card["note"] == "x"
    assert_equal(loaded.meta_parameters, weights.meta_parameters)


def test_weights_of_one_name_go_by_their_paths(tmp_path):
    paths = [str(tmp_path / f"{number}" / "weights.npz") for number in range(2)]
    for path in paths:
        pathlib.Path(path).parent.mkdir()
        save_trained(fresh_trained(GlobalLearningRate()), path)
    names = [weights.name for weights in find_weights([*paths, "bootstrap-v1"])]
    assert names == [*(path.removesuffix(".npz") for path in paths), "bootstrap-v1"]


def test_weights_of_others_are_refused_by_the_keras_class(tmp_path):
    save_trained(fresh_trained(TrainableAdam()), tmp_path / "w.npz")
    with pytest.raises(ValueError, match="hierarchical RNN.*'trainable_adam'"):
        HierarchicalRNN(weights=tmp_path / "w.npz")
    message = "optimizer to train, learning_rate_schedule. Received:"
    with pytest.raises(ValueError, match=message):
        starting_weights("learning_rate_schedule", tmp_path / "w.npz")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda card: card.update(sha256="0"), "sha256 of its card"),
        (lambda card: card.update(optimizer="none"), "must be one of"),
        (
            lambda card: card.update(config={"x": 1}),
            "settings of trainable_adam must be among",
        ),
        (lambda card: card.update(config=None), "must be an object"),
        (lambda card: card.update(optimizer="global_learning_rate"), "settings"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, damage, message):
    save_trained(fresh_trained(TrainableAdam()), tmp_path / "w.npz")
    card = json.loads((tmp_path / "w.json").read_text())
    damage(card)
    (tmp_path / "w.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        load_trained(tmp_path / "w.npz")


def test_weights_of_other_arrays_are_refused():
    weights = fresh_trained(LearningRateSchedule(num_steps=4))
    with pytest.raises(ValueError, match=r"shape \(5,\). Received:"):
        dataclasses.replace(weights, optimizer=LearningRateSchedule(num_steps=5))
    with pytest.raises(ValueError, match="must be .'log_learning_rate'."):
        dataclasses.replace(weights, optimizer=GlobalLearningRate())
    bad = {"log_learning_rates": np.full(4, np.nan, np.float32)}
    with pytest.raises(ValueError, match="not finite"):
        dataclasses.replace(weights, meta_parameters=bad)


@pytest.mark.parametrize("bad", ["", ".", "/"])
def test_a_path_without_a_name_is_refused(bad):
    with pytest.raises(ValueError, match="must be .* SavedModel.* Received: "):
        load_trained(bad)
