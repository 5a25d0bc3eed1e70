"""The seams of the update rule: each variant against the plain one.

The golden data of `test_golden.py` say that the plain rule is right.
"""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.state import initial_state
from learned_optimizer.rule.update_rule import compute_step
from tests.arrays import assert_equal
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule.packed import (
    CONFIGS,
    FIELDS,
    SHAPES,
    Inputs,
    assert_same_results,
    assert_same_tensor,
    run,
)
from tests.learned_optimizer.states import update


@pytest.mark.parametrize(
    "block_size, blocks_per_chunk",
    [(7, None), (512, None), (1, 5), (4, 2), (3, 1), (2, 100)],
)
def test_block_sizes_and_chunks_agree(plain, block_size, blocks_per_chunk):
    weights, inputs, expected = plain
    layout = Layout.from_shapes(SHAPES, block_size, blocks_per_chunk)
    assert_same_results(run(inputs, weights, layout), expected)


@pytest.mark.parametrize("blocks_per_chunk", [None, 2, "in pieces"])
def test_shards_agree_with_one_piece(plain, blocks_per_chunk):
    weights, inputs, expected = plain
    if blocks_per_chunk == "in pieces":
        # The last piece of a shard overlaps the one before.
        layout = Layout.from_shapes(SHAPES, 4, shards=2)
        layout = layout.in_pieces(len(layout.block_tensor) // 2 - 1)
        assert layout.num_chunks == 2
    else:
        layout = Layout.from_shapes(SHAPES, 4, blocks_per_chunk, shards=3)
    rates = packing.pack(inputs.rates, layout)[None]
    meta = weights.meta_parameters
    state = initial_state(layout, meta, weights.config, rates)
    with pytest.raises(ValueError, match=r"list of \d arrays, one a shard"):
        run(inputs, weights, layout, state)
    pieces = {
        name: [getattr(state, name)[:, rows] for rows in layout.shard_blocks]
        for name in FIELDS
    }
    result = run(inputs, weights, layout, state._replace(**pieces))
    assert_same_results(result, expected)


def test_problems_side_by_side_are_each_alone(plain):
    weights, inputs, alone = plain
    other = Inputs.make([(3,), (2, 2)], seed=1)
    other_alone = run(other, weights, Layout.from_shapes(other.shapes, block_size=1))
    both = inputs.beside(other)
    count = len(SHAPES)
    layout = Layout.from_shapes(both.shapes, 4, problems=[0] * count + [1, 1])
    result = run(both, weights, layout)
    for i in range(count):
        assert_same_tensor(result.tensor(i), alone.tensor(i))
    for i in range(2):
        assert_same_tensor(result.tensor(count + i), other_alone.tensor(i))
    expected = [each.state["global_state"] for each in (alone, other_alone)]
    expected = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(result.state["global_state"], expected, atol=3e-6)


def test_where_none_is_active_nothing_changes(plain):
    weights, inputs, _ = plain
    for blocks_per_chunk, options in ((None, {}), (2, {}), (2, dict(num_chunks=0))):
        layout = Layout.from_shapes(SHAPES, 4, blocks_per_chunk)
        before = run(inputs, weights, layout)
        again = Inputs(before.values, inputs.gradients, inputs.rates)
        active = np.zeros(5, np.float32)
        after = run(again, weights, layout, before.packed, active=active, **options)
        assert_equal(after.packed, before.packed)
        assert_equal(after.values, before.values)


# Derivatives.


@pytest.mark.parametrize("name", ["attention", "no output scale"])
def test_meta_gradients_are_those_of_finite_differences(name):
    weights = perturbed_weights(**CONFIGS[name])
    inputs = Inputs.make([(3,), (2,)], steps=3)
    layout = Layout.from_shapes(inputs.shapes, block_size=2)
    meta = {key: tf.constant(x) for key, x in weights.meta_parameters.items()}
    gradients = [packing.pack(step, layout) for step in inputs.gradients]

    @tf.function
    def objective(meta):
        values = packing.pack(inputs.values, layout)
        attended = values
        rates = packing.pack(inputs.rates, layout)[None]
        state = initial_state(layout, meta, weights.config, rates)
        total = 0.0
        for gradient in gradients:
            # Of a bowl, so that what a step does reaches the next gradient.
            arguments = (attended + gradient, state, layout, meta, weights.config)
            values, attended, state = update(values, *arguments)
            total += tf.reduce_sum(layout.mask() * values**2)
        return total

    with tf.GradientTape() as tape:
        tape.watch(meta)
        value = objective(meta)
    found = tape.gradient(value, meta)
    generator = np.random.default_rng(0)
    for key, gradient in found.items():
        assert gradient is not None, key
        direction = np.float32(generator.standard_normal(gradient.shape))
        size = 2e-3 / max(1.0, np.linalg.norm(direction))
        up, down = (
            float(objective({**meta, key: meta[key] + sign * size * direction}))
            for sign in (1, -1)
        )
        numeric = (up - down) / (2 * size)
        # Rounding of the objective, over the difference.
        noise = float(4e-7 * abs(float(value)) / size)
        assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(
            numeric, rel=2e-2, abs=noise
        ), key


def test_the_bounds_of_the_rate_pass_gradients_straight_through():
    weights = perturbed_weights(max_log_learning_rate=-5.0)
    inputs = Inputs.make([(3,)], steps=1)
    layout = Layout.from_shapes(inputs.shapes, block_size=3)
    gradient = packing.pack(inputs.gradients[0], layout)
    for bias, wanted in ((50.0, -5.0), (-50.0, -33.0)):
        meta = {key: tf.constant(x) for key, x in weights.meta_parameters.items()}
        meta["learning_rate_bias"] = tf.constant([bias])
        with tf.GradientTape() as tape:
            tape.watch(meta)
            state = initial_state(layout, meta, weights.config, -6.0)
            outcome = compute_step(gradient, state, layout, meta, weights.config)
            rates = outcome.state.log_learning_rate
            total = tf.reduce_sum(rates)
        momentum = 1 / (1 + np.exp(-np.float64(meta["learning_rate_momentum_logit"])))
        expected = momentum * -6 + (1 - momentum) * wanted
        np.testing.assert_allclose(rates, np.full((1, 1, 3), expected), rtol=1e-5)
        # As if nothing had been clipped: each of three elements moves by 1 - momentum.
        found = tape.gradient(total, meta["learning_rate_bias"])
        np.testing.assert_allclose(found, [3 * (1 - momentum)], rtol=1e-4)
