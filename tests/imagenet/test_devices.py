"""Devices that are not on this machine."""

import types

import pytest
import tensorflow as tf

from imagenet.devices import devices_of
from imagenet.settings import TrainingSettings


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
    settings = TrainingSettings(
        data_dir="data", model_dir="run", strategy="tpu", train_steps=1, batch_size=32
    )
    assert devices_of(settings).num_replicas == 8
    assert asked == [expected]
