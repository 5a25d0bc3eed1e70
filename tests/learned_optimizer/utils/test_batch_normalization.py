"""Running averages against means of batch statistics that NumPy computes."""

import keras
import numpy as np
import pytest

from learned_optimizer.utils.batch_normalization import RunningAverages
from tests.arrays import assert_close
from tests.conftest import two_replicas

LAYERS = keras.layers
X = np.random.default_rng(0).normal(3.0, 2.0, (12, 4)).astype(np.float32)
BATCHES = (X[:5], X[5:10], X[10:])


def averages_of(layer):
    return [keras.ops.convert_to_numpy(v) for v in layer.non_trainable_variables]


def expected(batches=BATCHES):
    return [
        np.mean([getattr(np, name)(batch, axis=0) for batch in batches], axis=0)
        for name in ("mean", "var")
    ]


class InInferenceMode(LAYERS.Layer):
    """A normalisation that is called with `training=False` always."""

    def build(self, shape):
        self.inner = LAYERS.BatchNormalization(name="inference")
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x, training=False)


def make_model():
    """Five normalisations of the same inputs, three of which use batch statistics."""
    inputs = keras.Input((4,))
    frozen = LAYERS.BatchNormalization(name="frozen")
    layers = [
        LAYERS.BatchNormalization(name="usual"),
        LAYERS.BatchNormalization(momentum=0.5, name="fast"),
        LAYERS.BatchNormalization(momentum=1.0, name="fixed"),
        frozen,
    ]
    outputs = [layer(inputs) for layer in layers]
    outputs.append(InInferenceMode()(inputs))
    inner = keras.Sequential([LAYERS.BatchNormalization(name="nested")])
    outputs.append(inner(LAYERS.Dropout(0.5, seed=0)(LAYERS.Concatenate()(outputs))))
    frozen.trainable = False
    return keras.Model(inputs, outputs)


def check_recomputed():
    model = make_model()
    nested = model.layers[-1].layers[0]
    for layer in (model.get_layer("usual"), model.get_layer("fast"), nested):
        for variable in (layer.moving_mean, layer.moving_variance):
            # Far off, as a network's own may be.
            variable.assign(np.full(variable.shape, 1e6))
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.variables]
    averages = RunningAverages(model)
    for _ in range(2):  # The second from where the first has left them.
        assert averages.recompute(BATCHES) == 3
        for name in ("usual", "fast"):
            assert_close(averages_of(model.get_layer(name)), expected(), rtol=1e-5)
        assert all(np.max(values) < 100 for values in averages_of(nested))
    changed = {
        variable.path.split("/")[-2]
        for variable, old in zip(model.variables, before, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable), old)
    }
    # Not the seed of the dropout either.
    assert changed == {"usual", "fast", "nested"}


def test_each_is_the_mean_over_batches_and_nothing_else_changes():
    check_recomputed()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_replicas_see_the_same_batch_or_one_each():
    import tensorflow as tf

    strategy = two_replicas()
    with strategy.scope():
        check_recomputed()
        model = keras.Sequential([keras.Input((4,)), LAYERS.BatchNormalization()])
    mine = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(BATCHES[context.replica_id_in_sync_group])
    )
    RunningAverages(model).recompute([mine])
    found = [
        strategy.experimental_local_results(variable.value)
        for variable in model.non_trainable_variables
    ]
    assert_close(found, [[wanted] * 2 for wanted in expected(BATCHES[:2])], rtol=1e-5)


def test_without_batches_or_normalisation():
    with pytest.raises(ValueError, match="batches must be one or more"):
        RunningAverages(make_model()).recompute([])
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(1)])
    assert RunningAverages(model).recompute(iter(())) == 0
