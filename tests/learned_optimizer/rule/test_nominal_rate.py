"""The nominal learning rate against the same rule in plain NumPy."""

import dataclasses
import math

import keras
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN, load_weights
from learned_optimizer.rule import nominal_rate as nominal
from learned_optimizer.rule.layout import Layout, pack, unpack
from learned_optimizer.rule.meta_parameters import with_more_inputs
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.rule.state import initial_state
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule.numpy_rule import log_sizes
from tests.learned_optimizer.states import update

SHAPES = ((6, 5), (5,), (3,))
RATE = NominalRate(
    ratio=0.1, memory=20.0, decay_steps=7.0, power=0.8, lowest=-1.5, highest=0.5
)


def values_and_gradients(steps=1, seed=3):
    generator = np.random.default_rng(seed)
    sizes = (0.2, 0.0, 3.0)
    values = [
        np.float32(size * generator.standard_normal(shape))
        for size, shape in zip(sizes, SHAPES, strict=True)
    ]
    gradients = [
        [np.float32(generator.standard_normal(shape)) for shape in SHAPES]
        for _ in range(steps)
    ]
    return values, gradients


DEEP = dataclasses.replace(RATE, largest=1.5, shallow_tensors=2.0)


@pytest.mark.parametrize("largest", [None, 1.5, 1e9])
@pytest.mark.parametrize("shallow_tensors", [None, 2.0, 3.5, 100.0])
def test_sizes_are_bounded_and_fall_with_the_number_of_tensors(
    largest, shallow_tensors
):
    """Several problems side by side, each against plain NumPy."""
    rate = dataclasses.replace(RATE, largest=largest, shallow_tensors=shallow_tensors)
    generator = np.random.default_rng(0)
    problems = [
        [0.05 * generator.normal(size=(30, 4)), np.ones(4), np.zeros(3), np.ones(2)],
        [np.zeros((2, 2)), np.zeros(5), np.zeros(1)],
        [generator.normal(size=7)],
    ]
    wanted = []
    for values in problems:
        everything = np.concatenate([value.ravel() for value in values])
        whole = np.sqrt(np.mean(everything**2))
        for size in np.exp(log_sizes(values)):
            if largest and whole > 0:
                size = min(size, largest * whole)
            if shallow_tensors and len(values) > shallow_tensors:
                size /= np.sqrt(len(values) / shallow_tensors)
            wanted.append(np.log(size))
    tensors = [np.float32(value) for values in problems for value in values]
    owners = [index for index, values in enumerate(problems) for _ in values]
    layout = Layout.from_shapes([t.shape for t in tensors], 4, problems=owners)
    found = np.array(nominal.log_sizes(pack(tensors, layout), layout, rate))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)


def trajectory(config, meta, values, gradients, layout, start, total_steps=0):
    """Packed values and state after a step on each of the gradients."""
    packed = pack(values, layout)
    log_size = nominal.log_sizes(packed, layout, config.nominal or RATE)
    state = initial_state(layout, meta, config, math.log(start), log_size)
    for step, gradient in enumerate(gradients):
        horizon = nominal.Horizon(np.float32(total_steps), np.float32(step))
        gradient = pack(gradient, layout)
        result = update(packed, gradient, state, layout, meta, config, horizon=horizon)
        packed, state = result.values, result.state
    return packed, state


@pytest.mark.slow
def test_the_start_is_forgotten():
    """After many steps nothing is left of the initial learning rate."""
    weights = perturbed_weights(nominal=RATE)
    values, gradients = values_and_gradients(steps=300)
    layout = Layout.from_shapes(SHAPES, 4)
    ends = []
    for start in (1e-6, 1e-1):
        _, state = trajectory(
            weights.config, weights.meta_parameters, values, gradients, layout, start
        )
        ends.append(np.array(state.log_learning_rate) * np.array(layout.mask()))
    np.testing.assert_allclose(*ends, atol=1e-2)


def test_rescaled_tensors_take_rescaled_steps():
    """A tensor in other units (its gradient in the inverse ones) moves alike."""
    weights = perturbed_weights(nominal=RATE, relative_learning_rate=False)
    values, gradients = values_and_gradients()
    layout = Layout.from_shapes(SHAPES, 4)

    def steps(factors):
        scaled = [value * f for value, f in zip(values, factors, strict=True)]
        slopes = [g / f for g, f in zip(gradients[0], factors, strict=True)]
        packed = pack(scaled, layout)
        log_size = np.array(nominal.log_sizes(packed, layout, RATE))
        state = initial_state(
            layout,
            weights.meta_parameters,
            weights.config,
            log_size[:, layout.block_tensor, None] - 3.0,
            log_size,
        )
        result = update(
            packed,
            pack(slopes, layout),
            state,
            layout,
            weights.meta_parameters,
            weights.config,
        )
        taken = unpack(packed - np.array(result.values), layout)
        return [np.array(t) / f for t, f in zip(taken, factors, strict=True)]

    # The tensor of zeros is as large as the others' geometric mean.
    for one, other in zip(steps((1, 1, 1)), steps((8, 4, 2)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "total_steps", "switches"),
    [
        (RATE, None, {}),
        (DEEP, None, {}),
        (RATE, 5, {}),
        (RATE, 3, {"horizon_input": True}),
        (RATE, None, {"horizon_input": True}),
    ],
)
def test_the_optimizer_does_what_the_rule_does(rate, total_steps, switches):
    weights = perturbed_weights(nominal=rate, **switches)
    values, gradients = values_and_gradients(steps=4)
    variables = [keras.Variable(value) for value in values]
    optimizer = HierarchicalRNN(
        weights=weights, initial_learning_rate=0.01, total_steps=total_steps
    )
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradient], variables)
    layout = Layout.from_shapes(SHAPES, 1)
    packed, _ = trajectory(
        *(weights.config, weights.meta_parameters, values, gradients, layout, 0.01),
        total_steps or 0,
    )
    for variable, wanted in zip(variables, unpack(packed, layout), strict=True):
        np.testing.assert_allclose(
            np.array(variable), np.array(wanted), rtol=2e-5, atol=2e-6
        )


def test_weights_widened_by_an_input_do_the_same_where_nothing_is_drawn_back():
    """The new input meets zeros, so it changes nothing by itself."""
    weights = load_weights("bootstrap-v1")
    loose = NominalRate(ratio=1.0, memory=1e30, lowest=-100.0, highest=100.0)
    wider = dataclasses.replace(weights.config, nominal=loose)
    widened = with_more_inputs(weights.meta_parameters, weights.config, wider)
    values, gradients = values_and_gradients(steps=5)
    layout = Layout.from_shapes(SHAPES, 4)
    ends = []
    for config, meta in ((weights.config, weights.meta_parameters), (wider, widened)):
        packed, _ = trajectory(config, meta, values, gradients, layout, 1e-2)
        ends.append(np.array(packed))
    np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="all inputs of the other"):
        with_more_inputs(widened, wider, weights.config)


def scheduled(rate, steps, total_steps):
    """The nominal rate for size 1 after `steps` of `total_steps`, by the formula."""
    left = max(0.0, 1 - steps / total_steps)
    fall = min(1.0, left / (1 - rate.fall_start)) ** rate.fall_power
    return (
        rate.ratio
        * rate.horizon_peak
        * (total_steps / 1000) ** -rate.horizon_power
        * (1 + steps / rate.decay_steps) ** -rate.horizon_decay
        * (rate.fall_end + (1 - rate.fall_end) * fall)
    )


SCHEDULES = (
    NominalRate(),
    dataclasses.replace(RATE, horizon_peak=2.0, horizon_power=0.5, horizon_decay=0.7),
    NominalRate(fall_start=0.75, fall_power=2.0, fall_end=0.1),
)


@pytest.mark.parametrize("rate", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 40, 5000])
def test_the_schedule_over_a_known_horizon(rate, total_steps):
    steps = np.linspace(0, 2 * total_steps, 17, dtype=np.float32)
    horizon = nominal.Horizon(np.float32(total_steps), steps)
    # What a tensor counts as its own steps plays no part.
    found = np.exp(rate.log_rate(np.float32(0.3), steps + 5, horizon))
    wanted = [math.exp(0.3) * scheduled(rate, t, total_steps) for t in steps]
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    unknown = nominal.Horizon(np.float32(0), steps)
    np.testing.assert_array_equal(
        rate.log_rate(np.float32(0.3), steps, unknown),
        rate.log_rate(np.float32(0.3), steps),
    )


def test_each_problem_follows_its_own_horizon():
    weights = perturbed_weights(nominal=RATE)
    meta = weights.meta_parameters
    values, gradients = values_and_gradients(steps=4)
    layout = Layout.from_shapes(SHAPES * 3, 4, problems=np.repeat(range(3), 3))
    alone = Layout.from_shapes(SHAPES, 4)

    def run(layout, copies, **options):
        packed = pack(values * copies, layout)
        sizes = nominal.log_sizes(packed, layout, RATE)
        state = initial_state(layout, meta, weights.config, math.log(1e-2), sizes)
        for step, gradient in enumerate(gradients):
            options_here = {k: option(step) for k, option in options.items()}
            config = options_here.pop("config", weights.config)
            gradient = pack(gradient * copies, layout)
            result = update(
                packed, gradient, state, layout, meta, config, **options_here
            )
            packed, state = result.values, result.state
        return unpack(np.array(packed), layout)

    totals = np.array([4, 0, 10], np.float32)
    found = run(layout, 3, horizon=lambda step: nominal.Horizon(totals, step))
    for index, total_steps in enumerate((4, None, 10)):

        def at(step, total_steps=total_steps):
            """An architecture whose nominal rate is constant, at what this step has."""
            if total_steps is None:
                return weights.config
            ratio = scheduled(RATE, step, total_steps)
            constant = dataclasses.replace(RATE, ratio=ratio, power=0.0)
            return dataclasses.replace(weights.config, nominal=constant)

        for one, other in zip(
            found[3 * index :][:3], run(alone, 1, config=at), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_fields_of_later_are_written_where_they_differ():
    config = load_weights("default-v2").config
    assert "fall_end" not in config.to_dict()["nominal"]
    later = dataclasses.replace(config.nominal, fall_end=0.1)
    later = dataclasses.replace(config, nominal=later)
    assert later.to_dict()["nominal"]["fall_end"] == 0.1
    for each in (config, later):
        assert type(each).from_dict(each.to_dict()) == each


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"ratio": 0.0}, "ratio must be .* above 0"),
        ({"memory": 0.5}, "memory must be .* 1 or more"),
        ({"decay_steps": -1}, "decay_steps must be .* above 0"),
        ({"power": -0.1}, "power must be .* 0 or more"),
        ({"power": 2.5}, "power must be .* at most 2"),
        ({"horizon_peak": 0.0}, "horizon_peak must be .* above 0"),
        ({"horizon_power": -0.1}, "horizon_power must be .* 0 or more"),
        ({"horizon_power": 1.1}, "horizon_power must be .* at most 1"),
        ({"horizon_decay": -0.1}, "horizon_decay must be .* 0 or more"),
        ({"horizon_decay": 2.5}, "horizon_decay must be .* at most 2"),
        ({"fall_start": -0.1}, "fall_start must be .* 0 or more"),
        ({"fall_start": 1.0}, "fall_start must be .* below 1"),
        ({"fall_power": 0.0}, "fall_power must be .* above 0"),
        ({"fall_power": 4.5}, "fall_power must be .* at most 4"),
        ({"fall_end": 0.0}, "fall_end must be .* above 0"),
        ({"fall_end": 1.1}, "fall_end must be .* at most 1"),
        ({"decline": -0.1}, "decline must be .* 0 or more"),
        ({"decline": 1.1}, "decline must be .* at most 1"),
        ({"lowest": 1.0}, "below 0"),
        ({"highest": math.nan}, "finite number"),
        ({"highest": None}, "finite number"),
        ({"largest": 0.0}, "must be a finite number, above 0"),
        ({"shallow_tensors": -1}, "must be a finite number, above 0"),
        ({"height": 1.0}, "has the fields"),
    ],
)
def test_bad_nominal_rates(fields, message):
    with pytest.raises(ValueError, match=message):
        NominalRate.from_value(fields)
