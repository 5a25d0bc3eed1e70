"""The sets of small networks: shipped weights name what they were trained on."""

import zlib

import pytest

from meta_training.tasks import task_set

DIGESTS = {
    "default_networks": 0x815C31A8,
    "broad_networks": 0xBFCFC16E,
    "residual_networks": 0x2E1521EE,
}


@pytest.mark.parametrize("name, digest", DIGESTS.items())
def test_sets_stay_what_weights_were_trained_on(name, digest):
    assert zlib.crc32(repr(task_set(name)).encode()) == digest


def test_few_computations():
    """The keys are what XLA compiles: these numbers may fall, not rise."""
    released = {task.batch_key for task in task_set("released")}
    default = {task.batch_key for task in task_set("default")}
    assert len(released) <= 48
    assert len(default - released) <= 14
    assert max(task.parameter_count for task in task_set("default_networks")) < 2000


def test_broad_networks_are_what_they_are_for():
    """20 to 200 tensors and widths from 8 to 256 under batch normalisation; noise."""
    deep = task_set("deep_networks")
    broad = task_set("broad_networks")
    assert broad[: len(deep)] == deep
    normalised = [task for task in broad if task.statistics_shapes]
    counts = [len(task.parameter_shapes) for task in normalised]
    assert max(counts) == 197 and sum(20 <= count <= 200 for count in counts) >= 10
    widths = {units for task in normalised for (units,) in task.statistics_shapes}
    assert {8, 256} <= widths
    # A step of the learned optimizer costs some 50 ns per parameter.
    assert max(task.parameter_count for task in broad) < 100_000
    assert len({task.name for task in broad}) == len(broad)
    noisy = [task for task in broad[len(deep) :] if task.label_noise]
    assert len(noisy) == len(broad[len(deep) :]) // 2


def test_default_has_released_and_random_data():
    default, released = task_set("default"), task_set("released")
    assert [task.batch_key for task in default[: len(released)]] == [
        task.batch_key for task in released
    ]
    assert default[len(released) :] == task_set("default_networks")
    assert {getattr(task, "data_seed", None) for task in default} == {None}
    assert all(task.positive for task in default)
