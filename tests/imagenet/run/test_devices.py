"""Devices that are not on this machine."""

import json
import types

import pytest
import tensorflow as tf

from imagenet.run.devices import devices_of
from tests.imagenet.small_runs import settings


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "local"), ("", "local"), ("my-tpu", "my-tpu")]
)
def test_the_tpu_that_is_named_or_attached(monkeypatch, name, expected):
    asked = []

    def connect(tpu=None, zone=None, project=None):
        asked.append(tpu)
        return "resolver"

    def strategy(resolver):
        assert resolver == "resolver"
        return types.SimpleNamespace(num_replicas_in_sync=8)

    monkeypatch.setattr(
        tf.distribute.cluster_resolver.TPUClusterResolver, "connect", connect
    )
    monkeypatch.setattr(tf.distribute, "TPUStrategy", strategy)
    monkeypatch.delenv("TPU_NAME", raising=False)
    if name is not None:
        monkeypatch.setenv("TPU_NAME", name)
    assert devices_of(settings("data", "run", strategy="tpu")).num_replicas == 8
    assert asked == [expected]


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_one_of_several_processes_does_not_run_alone(monkeypatch, strategy):
    """They would all write to one folder."""
    cluster = {"worker": ["a:1", "b:1"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match=f"strategy {strategy}.* with 2 processes"):
        devices_of(settings("data", "run", strategy=strategy))


def test_one_process_that_is_a_cluster_of_its_own(monkeypatch):
    for alone in ("", "{}", "no JSON", json.dumps({"cluster": {"worker": ["a:1"]}})):
        monkeypatch.setenv("TF_CONFIG", alone)
        assert devices_of(settings("data", "run")).num_workers == 1
