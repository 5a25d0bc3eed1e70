"""Held-out networks: they share nothing with meta-training, and are what they say."""

import zlib

import numpy as np
import pytest

from meta_training.held_out import list_network_groups, network_group
from meta_training.held_out.data import load_data
from meta_training.tasks import list_task_sets, task_set


def test_held_out_networks_share_nothing_with_meta_training():
    groups = {name: network_group(name) for name in list_network_groups()}
    trained = {
        task.parameter_shapes for name in list_task_sets() for task in task_set(name)
    }
    shapes = [task.parameter_shapes for group in groups.values() for task in group]
    # The final group has one network twice, on more and on less data.
    assert len(set(shapes)) == len(shapes) - 1 and not set(shapes) & trained
    data = {name: {task.data_set for task in group} for name, group in groups.items()}
    assert sum(map(len, data.values())) == len(set().union(*data.values()))
    assert all("digit" in name for name in data["test"])
    assert not set(groups) & set(list_task_sets())
    largest = max(groups["validation"], key=lambda task: task.parameter_count)
    assert largest.parameter_count >= 1e6 and largest.normalisation == "batch"


@pytest.mark.parametrize(
    "name, digest",
    [("validation", 0xC5A8273C), ("test", 0xEE4CD61E), ("final", 0x22AD5804)],
)
def test_groups_stay_those_of_published_figures(name, digest):
    assert zlib.crc32(repr(network_group(name)).encode()) == digest


@pytest.mark.parametrize(
    "task",
    network_group("test") + network_group("validation")[:-1],
    ids=lambda task: task.name,
)
def test_held_out_networks_start_where_they_should(task):
    generator = np.random.default_rng(0)
    values = [value[None] for value in task.sample_parameters(generator)]
    instance = {k: v[None] for k, v in task.sample_instance(generator).items()}
    loss = task.objective(values, instance).numpy()
    is_classifier = hasattr(task, "classes")
    assert loss.shape == (1,)
    assert (0.5 * np.log(task.classes) if is_classifier else 0) < loss[0] < 3
    data = load_data(task.data_set)
    training = {row.tobytes() for row in data.training_inputs}
    assert not any(row.tobytes() in training for row in data.test_inputs)
    if is_classifier:
        assert set(data.training_targets) == set(range(task.classes))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: network_group("train"), "one of validation, .*'train'"),
        (lambda: load_data("cifar"), "data set must be one of .*'cifar'"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
