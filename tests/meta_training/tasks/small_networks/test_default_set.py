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
