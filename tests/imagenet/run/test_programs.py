"""What one step computes: images that do not count, and the first five answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from imagenet.optimizers import unwrapped, with_loss_scale
from imagenet.run.devices import Devices
from imagenet.run.programs import Programs
from imagenet.run.training import resolve_optimizer
from tests.arrays import assert_close, assert_equal
from tests.imagenet import tiny
from tests.imagenet.small_runs import settings

RATE = 0.1


def programs_of(model, **changes):
    changes |= dict(learning_rate=RATE, schedule="constant", weight_decay=0.0)
    run = settings("unused", "unused", model="plain", **changes)
    spec = resolve_optimizer(run, 40)
    devices = Devices(tf.distribute.get_strategy(), 1)
    return Programs(run, spec, devices, model, spec.make(model))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "weights",
    [(1, 0, 1, 1, 0, 1, 0, 1), (1, 0, 1, 1, 0, 0, 0, 0), (0,) * 8],
    ids=["some", "a_part_of_none", "none"],
)
def test_images_of_weight_0_are_as_if_left_out(weights, parts):
    """By Keras's own loss, on the others alone."""
    model = tiny.plain(None, 4, (32, 32, 3), None)
    random = np.random.default_rng(0)
    images = random.normal(size=(8, 32, 32, 3)).astype(np.float32)
    labels = random.integers(0, 4, 8).astype(np.int32)
    weights = np.array(weights, np.float32)
    kept = weights > 0
    images[~kept] *= 100
    before = [np.array(variable) for variable in model.trainable_variables]
    loss, gradients = 0.0, [np.zeros_like(value) for value in before]
    if kept.any():
        cross_entropy = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.3
        )
        with tf.GradientTape() as tape:
            logits = model(images[kept])
            loss = cross_entropy(keras.ops.one_hot(labels[kept], 4), logits)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        right = (np.array(logits).argmax(-1) == labels[kept]).sum()
    batches = tf.data.Dataset.from_tensor_slices((images, labels, weights))
    batches = batches.batch(8 // parts)
    programs = programs_of(model, accumulation_steps=parts, label_smoothing=0.3)
    ((*row, log_rate),) = programs.train(iter(batches), tf.constant(1)).numpy()
    after = [np.array(variable) for variable in model.trainable_variables]
    # The first step of momentum is that of plain descent.
    moves = [old - new for old, new in zip(before, after, strict=True)]
    assert_close(moves, [RATE * np.array(g) for g in gradients], rtol=1e-4, atol=1e-7)
    expected = [0.0] * 3
    if kept.any():
        expected = [float(loss) * kept.sum(), right, kept.sum()]
        assert any(move.any() for move in moves)
    np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert log_rate == 0.0


def test_the_first_five_of_seven_by_hand():
    # What is shown are the logits themselves.
    dense = keras.layers.Dense(7, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((1, 1, 7)), keras.layers.Flatten(), dense])
    logits = np.array([7, 6, 5, 4, 3, 2, 1], np.float32)
    labels = np.array([0, 4, 5, 6, 0], np.int32)
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    images = np.broadcast_to(logits, (5, 1, 1, 7))
    batches = tf.data.Dataset.from_tensors((images, labels, weights))
    evaluate = programs_of(model).evaluate
    top_1, top_5, loss, count = evaluate(iter(batches), tf.constant(1))
    assert (float(top_1), float(top_5), float(count)) == (1.0, 2.0, 4.0)
    expected = 4 * np.log(np.exp(logits).sum()) - logits[[0, 4, 5, 6]].sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def mirrored(name, optimizer, precision):
    """Of two replicas: strategy, model, optimizer and programs."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    changes = {"model": name, "optimizer": optimizer, "precision": precision}
    run = settings("unused", "unused", strategy="mirrored", **changes)
    spec = resolve_optimizer(run, 40)
    with strategy.scope():
        model = getattr(tiny, name)(None, 4, (32, 32, 3), None)
        made = with_loss_scale(spec.make(model), model, precision)
    return strategy, model, made, Programs(run, spec, Devices(strategy, 2), model, made)


@pytest.mark.distributed
def test_replicas_agree_on_the_statistics_of_normalizations():
    """Keras leaves each its own; evaluated and saved is their mean."""
    strategy, model, _, programs = mirrored("tiny", "momentum", "float32")

    @tf.function
    def step():
        def on_replica():
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group
            images = tf.random.stateless_normal([4, 32, 32, 3], [1, 2])
            images *= tf.cast(1 + 2 * mine, tf.float32)
            programs.train_step((images, tf.constant([0, 1, 2, 3]), tf.ones(4)))

        strategy.run(on_replica)

    def statistics():
        layer = model.layers[1]
        return [
            [np.array(value) for value in strategy.experimental_local_results(v.value)]
            for v in (layer.moving_mean, layer.moving_variance)
        ]

    step()
    before = statistics()
    assert all(np.any(one != other) for one, other in before)
    programs.average_statistics()
    for (one, other), (first, second) in zip(statistics(), before, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, (first + second) / 2, rtol=1e-6)


@pytest.mark.distributed
@pytest.mark.parametrize("optimizer", ["momentum", "hierarchical_rnn"])
def test_an_overflow_on_one_replica_is_one_on_all(optimizer):
    """Keras's loss scale asks the first replica alone."""
    strategy, model, scaled, programs = mirrored("plain", optimizer, "mixed_float16")

    @tf.function
    def step(replica_that_overflows):
        def on_replica():
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group
            overflows = tf.equal(mine, replica_that_overflows)
            factor = tf.where(overflows, np.inf, 1.0)
            programs.apply([factor * tf.ones(v.shape) for v in model.trainable_weights])

        strategy.run(on_replica)

    def values():
        return [v.numpy() for v in model.trainable_weights]

    iterations = unwrapped(scaled).iterations
    before, scale = values(), scaled.dynamic_scale.numpy()
    for replica in (0, 1):
        step(replica)
        scale /= 2
        assert scaled.dynamic_scale.numpy() == scale
        assert iterations.numpy() == 0
        assert_equal(values(), before)
    step(-1)
    assert scaled.dynamic_scale.numpy() == scale
    assert iterations.numpy() == 1
    assert any((x != y).any() for x, y in zip(before, values(), strict=True))
    assert all(np.isfinite(v).all() for v in values())
