"""The markers of `tests/conftest.py` that give a test a process of its own."""

import os

import keras
import pytest

BACKENDS = [
    pytest.param(
        "tensorflow", marks=[pytest.mark.backend("tensorflow"), pytest.mark.slow]
    ),
    pytest.param("jax", marks=pytest.mark.backend("jax")),
    pytest.param("torch", marks=[pytest.mark.backend("torch"), pytest.mark.slow]),
]


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_is_the_one_named(name):
    assert keras.config.backend() == name
    total = keras.ops.sum(keras.ops.ones((2, 3)))
    assert float(total) == 6.0


@pytest.mark.distributed
def test_distributed_has_two_devices():
    import tensorflow as tf

    assert "PYTEST_XDIST_WORKER" not in os.environ
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    replicas = strategy.run(
        lambda: tf.distribute.get_replica_context().replica_id_in_sync_group
    )
    found = [int(value) for value in strategy.experimental_local_results(replicas)]
    assert found == [0, 1]
