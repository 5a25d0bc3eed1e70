"""The seams of the update rule: each variant against the plain one.

The golden data of `test_golden.py` say that the plain rule is right.
"""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.state import State, initial_state
from learned_optimizer.rule.update_rule import compute_step
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.states import update

SHAPES = [(4, 3), (5,), (), (2, 1), (9,)]
STEPS = 4
FIELDS = ("hidden_state", "gradient_averages", "mean_squares", "log_learning_rate")
CONFIGS = {
    "default": {},
    "attention": dict(attention=True),
    "two levels": dict(level_sizes=(4, 6), gradient_timescales=2),
    "one level": dict(level_sizes=(5,), extreme_indicator=True),
    "last tensor": dict(global_rnn_input="last_tensor"),
    "tensor mean": dict(learning_rate_mean="tensor", multiple_scale_decays=True),
    "nominal": dict(nominal=dict(ratio=0.5, memory=3.0, decay_steps=2.0)),
    "no output scale": dict(dynamic_output_scale=False, relative_learning_rate=False),
    "attention, no output scale": dict(
        attention=True, dynamic_output_scale=False, relative_learning_rate=False
    ),
}


@dataclasses.dataclass
class Inputs:
    """Tensors, their gradients at each step, and where their rates start."""

    values: list
    gradients: list
    rates: list

    @classmethod
    def make(cls, shapes=SHAPES, seed=0, steps=STEPS):
        generator = np.random.default_rng(seed)

        def draw(scale=1.0, mean=0.0):
            return [
                np.float32(mean + scale * generator.standard_normal(shape))
                for shape in shapes
            ]

        return cls(draw(), [draw() for _ in range(steps)], draw(1.0, -3.0))

    def take(self, chosen):
        """The same for some of the tensors."""
        return Inputs(
            [self.values[i] for i in chosen],
            [[step[i] for i in chosen] for step in self.gradients],
            [self.rates[i] for i in chosen],
        )

    @property
    def shapes(self):
        return [value.shape for value in self.values]


@dataclasses.dataclass
class Result:
    """Tensors and state after some steps, in no packing."""

    values: list
    attended: list
    state: dict
    packed: State

    @classmethod
    def of(cls, outcome, layout):
        state = {}
        for name, array in outcome.state._asdict().items():
            is_sharded = isinstance(array, list)
            state[name] = np.asarray(np.concatenate(array, 1) if is_sharded else array)
        for name in FIELDS:
            state[name] = [
                packing.rows_of_blocks(
                    state[name][:, layout.blocks_of(i)], layout.shapes[i]
                )
                if state[name].shape[0]
                else np.zeros((math.prod(layout.shapes[i]), 0), np.float32)
                for i in range(layout.num_tensors)
            ]
        return cls(
            [np.asarray(x) for x in packing.unpack(outcome.values, layout)],
            [np.asarray(x) for x in packing.unpack(outcome.attended_values, layout)],
            state,
            outcome.state,
        )

    def tensor(self, i):
        """Everything that belongs to one tensor."""
        found = {"value": self.values[i], "attended": self.attended[i]}
        found |= {name: self.state[name][i] for name in FIELDS}
        found["tensor_state"] = self.state["tensor_state"][:, i]
        found["started"] = self.state["started"][i]
        return found


def run(inputs, weights, layout=None, state=None, meta=None, **options):
    """Takes packed tensors through all steps."""
    layout = layout or Layout.from_shapes(inputs.shapes, block_size=4)
    meta = weights.meta_parameters if meta is None else meta
    values = packing.pack(inputs.values, layout)
    if state is None:
        rates = packing.pack(inputs.rates, layout)[None]
        state = initial_state(layout, meta, weights.config, rates)
    for gradients in inputs.gradients:
        packed = packing.pack(gradients, layout)
        outcome = update(values, packed, state, layout, meta, weights.config, **options)
        values, state = outcome.values, outcome.state
    return Result.of(outcome, layout)


def assert_same_tensor(one, other, atol=3e-6, where=""):
    for name, wanted in other.items():
        np.testing.assert_allclose(
            one[name], wanted, rtol=2e-5, atol=atol, err_msg=f"{where} {name}"
        )


def assert_same_results(one, other, order=None):
    order = order or range(len(other.values))
    for i, j in zip(order, range(len(other.values)), strict=True):
        assert_same_tensor(one.tensor(i), other.tensor(j), where=f"tensor {i}")
    np.testing.assert_allclose(
        one.state["global_state"], other.state["global_state"], atol=3e-6
    )


# The switches of these are in others too, or in the golden cases.
SLOW_CONFIGS = ("one level", "last tensor", "tensor mean", "no output scale")

# Ten seconds each.
QUICK_ROW_LENGTHS = ("default", "attention")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW_CONFIGS else ())
        for name in CONFIGS
    ],
)
def plain(request):
    """A config's weights, inputs, and what the plain rule makes of them."""
    weights = perturbed_weights(**CONFIGS[request.param])
    inputs = Inputs.make()
    layout = Layout.from_shapes(SHAPES, block_size=1)
    return weights, inputs, run(inputs, weights, layout)


def test_the_state_has_no_trace_of_other_tests(plain):
    weights, inputs, expected = plain
    assert (
        max(
            np.abs(a - b).max()
            for a, b in zip(expected.values, inputs.values, strict=True)
        )
        > 1e-2
    )
    moves = [
        np.abs(a - b).max()
        for a, b in zip(expected.values, expected.attended, strict=True)
    ]
    assert (max(moves) > 1e-3) == weights.config.attention


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
    both = Inputs(
        inputs.values + other.values,
        [a + b for a, b in zip(inputs.gradients, other.gradients, strict=True)],
        inputs.rates + other.rates,
    )
    count = len(SHAPES)
    layout = Layout.from_shapes(
        both.shapes, block_size=4, problems=[0] * count + [1, 1]
    )
    result = run(both, weights, layout)
    for i in range(count):
        assert_same_tensor(result.tensor(i), alone.tensor(i))
    for i in range(2):
        assert_same_tensor(result.tensor(count + i), other_alone.tensor(i))
    for column, expected in enumerate((alone, other_alone)):
        np.testing.assert_allclose(
            result.state["global_state"][:, column],
            expected.state["global_state"][:, 0],
            atol=3e-6,
        )


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(name, marks=() if name in QUICK_ROW_LENGTHS else pytest.mark.slow)
        for name in CONFIGS
    ],
    indirect=True,
)
def test_row_lengths_may_be_data(plain):
    weights, inputs, expected = plain
    config, meta = weights.config, weights.meta_parameters
    lengths = [value.size for value in inputs.values]

    def flat(arrays):
        return np.concatenate([array.reshape(-1) for array in arrays])[:, None]

    @tf.function(
        jit_compile=True,
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 1], tf.float32),
            tf.TensorSpec([None, None, 1], tf.float32),
            tf.TensorSpec([None, 1], tf.float32),
        ],
    )
    def take_steps(lengths, values, gradients, rates):
        layout = Layout.from_row_lengths(lengths, tf.shape(values)[0])
        state = initial_state(layout, meta, config, rates[None])
        for step in range(STEPS):
            outcome = update(values, gradients[step], state, layout, meta, config)
            values, state = outcome.values, outcome.state
        return outcome

    shapes = Layout.from_shapes(SHAPES, block_size=1)
    outcome = take_steps(
        lengths,
        flat(inputs.values),
        np.stack([flat(step) for step in inputs.gradients]),
        flat(inputs.rates),
    )
    assert_same_results(Result.of(outcome, shapes), expected)
    # The same program on other lengths.
    other = inputs.take([4, 0])
    wanted = run(other, weights, Layout.from_shapes(other.shapes, block_size=1))
    outcome = take_steps(
        [9, 12],
        flat(other.values),
        np.stack([flat(step) for step in other.gradients]),
        flat(other.rates),
    )
    layout = Layout.from_shapes(other.shapes, block_size=1)
    assert_same_results(Result.of(outcome, layout), wanted)


def test_each_problem_may_have_meta_parameters_of_its_own(plain):
    weights, inputs, alone = plain
    other_weights = perturbed_weights(seed=5, **dataclasses.asdict(weights.config))
    problems = [0] * 5 + [1] * 5
    layout = Layout.from_shapes(SHAPES * 2, block_size=4, problems=problems)
    both = inputs.take([*range(5), *range(5)])

    def stacked(first, second):
        return {
            name: np.stack([array, second.meta_parameters[name]])
            for name, array in first.meta_parameters.items()
        }

    shared = run(both, weights, layout, meta=stacked(weights, weights))
    assert_same_results(shared, run(both, weights, layout))
    result = run(both, weights, layout, meta=stacked(weights, other_weights))
    others = run(inputs, other_weights)
    for i in range(5):
        assert_same_tensor(result.tensor(i), alone.tensor(i))
        assert_same_tensor(result.tensor(5 + i), others.tensor(i))
    assert np.abs(others.values[0] - alone.values[0]).max() > 1e-3


def test_inactive_tensors_stay_and_the_others_are_as_without_them(plain):
    weights, inputs, _ = plain
    for block_size, blocks_per_chunk in ((4, None), (4, 2)):
        layout = Layout.from_shapes(SHAPES, block_size, blocks_per_chunk)
        first = Inputs(inputs.values, inputs.gradients[:2], inputs.rates)
        before = run(first, weights, layout)
        chosen = [0, 2, 3]
        active = np.float32([i in chosen for i in range(5)])
        # What is not finite must not get out of an inactive tensor.
        gradients = [list(step) for step in inputs.gradients[2:]]
        gradients[0][1] = gradients[0][1] * np.nan
        gradients[1][4] = np.full_like(gradients[1][4], np.inf)
        later = Inputs(before.values, gradients, inputs.rates)
        after = run(later, weights, layout, state=before.packed, active=active)
        for i in (1, 4):
            for name, array in before.tensor(i).items():
                if name != "attended":
                    np.testing.assert_array_equal(after.tensor(i)[name], array, name)
            np.testing.assert_array_equal(after.attended[i], after.values[i])

        # A model that never had the others goes on from the same state.
        part = Layout.from_shapes([SHAPES[i] for i in chosen], block_size)
        fields = {
            name: np.stack(
                [
                    packing.pack([before.state[name][i][:, k] for i in chosen], part)
                    for k in range(before.state[name][0].shape[1])
                ]
            )
            if before.state[name][0].shape[1]
            else np.zeros((0, *packing.pack(later.take(chosen).values, part).shape))
            for name in FIELDS
        }
        state = State(
            **{name: np.float32(array) for name, array in fields.items()},
            tensor_state=before.state["tensor_state"][:, chosen],
            global_state=before.state["global_state"],
            started=before.state["started"][chosen],
            log_size=before.state["log_size"][:, chosen],
            steps_taken=before.state["steps_taken"][:, chosen],
        )
        wanted = run(later.take(chosen), weights, part, state=state)
        for position, i in enumerate(chosen):
            assert_same_tensor(after.tensor(i), wanted.tensor(position))
        np.testing.assert_allclose(
            after.state["global_state"], wanted.state["global_state"], atol=3e-6
        )


def test_where_none_is_active_nothing_changes(plain):
    weights, inputs, _ = plain
    for blocks_per_chunk, options in ((None, {}), (2, {}), (2, dict(num_chunks=0))):
        layout = Layout.from_shapes(SHAPES, 4, blocks_per_chunk)
        before = run(inputs, weights, layout)
        again = Inputs(before.values, inputs.gradients, inputs.rates)
        after = run(
            again,
            weights,
            layout,
            state=before.packed,
            active=np.zeros(5, np.float32),
            **options,
        )
        for one, other in zip(before.packed, after.packed, strict=True):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(before.values, after.values, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_order_of_tensors_does_not_matter():
    for name in ("default", "attention", "tensor mean"):
        weights = perturbed_weights(**CONFIGS[name])
        inputs = Inputs.make()
        order = [3, 0, 4, 2, 1]
        permuted = run(inputs.take(order), weights)
        assert_same_results(run(inputs, weights), permuted, order)
    # But for the released global RNN, which sees the last one.
    weights = perturbed_weights(global_rnn_input="last_tensor")
    one, other = run(inputs, weights), run(inputs.take(order), weights)
    assert np.abs(one.state["global_state"] - other.state["global_state"]).max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    block_size=st.integers(1, 5),
    blocks_per_chunk=st.none() | st.integers(1, 4),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_any_layout_agrees_with_the_plain_one(
    lengths, block_size, blocks_per_chunk, scale, seed
):
    weights = perturbed_weights()
    inputs = Inputs.make([(length,) for length in lengths], seed, steps=2)
    inputs.gradients = [[scale * x for x in step] for step in inputs.gradients]
    layout = Layout.from_shapes(inputs.shapes, block_size, blocks_per_chunk)
    plain = Layout.from_shapes(inputs.shapes, block_size=1)
    one, other = run(inputs, weights, layout), run(inputs, weights, plain)
    for name in ("values", "attended"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=4e-6)
    np.testing.assert_allclose(
        one.state["global_state"], other.state["global_state"], atol=1e-5
    )


# Derivatives.


@pytest.mark.parametrize("name", ["default", "attention", "no output scale"])
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
            outcome = update(
                values,
                attended + gradient,
                state,
                layout,
                meta,
                weights.config,
            )
            values, attended, state = outcome
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


@pytest.mark.parametrize("learnable", [True, False])
def test_start_vectors_have_a_gradient_only_where_they_are_learned(learnable):
    weights = perturbed_weights(learnable_start=learnable)
    inputs = Inputs.make(steps=1)
    meta = {key: tf.constant(x) for key, x in weights.meta_parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(meta)
        state = run(inputs, weights, meta=meta).packed
        total = sum(
            tf.reduce_sum(tf.sin(getattr(state, name)))
            for name in ("hidden_state", "tensor_state", "global_state")
        )
    found = tape.gradient(
        total, meta, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    for level in ("parameter", "tensor", "global"):
        assert np.any(found[f"{level}_start"].numpy() != 0) == learnable, level
        # Everything else is trained either way.
        assert np.any(found[f"{level}_gates_kernel"].numpy() != 0), level


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
        np.testing.assert_allclose(
            rates,
            np.full((1, 1, 3), momentum * -6 + (1 - momentum) * wanted),
            rtol=1e-5,
        )
        # As if nothing had been clipped: each of three elements moves by 1 - momentum.
        found = tape.gradient(total, meta["learning_rate_bias"])
        np.testing.assert_allclose(found, [3 * (1 - momentum)], rtol=1e-4)


def test_chunks_with_meta_parameters_a_problem_are_refused():
    weights = perturbed_weights()
    inputs = Inputs.make()
    layout = Layout.from_shapes(SHAPES, 4, 2)
    meta = {name: array[None] for name, array in weights.meta_parameters.items()}
    with pytest.raises(ValueError, match="chunks"):
        run(inputs, weights, layout, meta=meta)
