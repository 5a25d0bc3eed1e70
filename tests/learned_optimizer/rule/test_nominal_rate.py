"""The nominal learning rate against the same rule in plain NumPy."""

import dataclasses
import math

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.rule import nominal_rate as nominal
from learned_optimizer.rule.layout import Layout, pack, unpack
from learned_optimizer.rule.meta_parameters import with_more_inputs
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.rule.state import initial_state
from tests.learned_optimizer.by_hand import (
    OptimizerByHand,
    assert_same,
    perturbed_weights,
)
from tests.learned_optimizer.rule.numpy_rule import log_sizes
from tests.learned_optimizer.states import update

SHAPES = ((6, 5), (5,), (3,))
RATE = NominalRate(
    ratio=0.1, memory=20.0, decay_steps=7.0, power=0.8, lowest=-1.5, highest=0.5
)
OF_HORIZON = dict(horizon_peak=2.0, horizon_power=0.5, horizon_decay=0.7)
OF_HORIZON |= dict(horizon_shallow_tensors=1.5, horizon_warmup=0.5)
OF_HORIZON |= dict(fall_start=0.4, fall_power=2.0, fall_end=0.1)


def values_and_gradients(steps=1, seed=3):
    generator = np.random.default_rng(seed)

    def draw():
        return [np.float32(generator.standard_normal(shape)) for shape in SHAPES]

    sizes = np.float32([0.2, 0.0, 3.0])
    values = [size * value for size, value in zip(sizes, draw(), strict=True)]
    return values, [draw() for _ in range(steps)]


@pytest.mark.parametrize("largest", [None, 1.5, 1e9])
@pytest.mark.parametrize("shallow_tensors", [None, 2.0, 3.5, 100.0])
@pytest.mark.parametrize("narrow_width", [None, 1.5, 1000.0])
def test_sizes_are_bounded_and_fall_with_the_number_of_tensors_and_the_width(
    largest, shallow_tensors, narrow_width
):
    """Several problems side by side, each against plain NumPy."""
    rate = dataclasses.replace(
        RATE,
        largest=largest,
        shallow_tensors=shallow_tensors,
        narrow_width=narrow_width,
    )
    generator = np.random.default_rng(0)
    problems = [
        [0.05 * generator.normal(size=(30, 4)), np.ones(4), np.zeros(3), np.ones(2)],
        [np.zeros((2, 2)), np.zeros(5), np.zeros(1)],
        [generator.normal(size=7), np.ones(()), np.ones((2, 3, 4))],
    ]
    wanted = np.concatenate([log_sizes(values, rate) for values in problems])
    tensors = [np.float32(value) for values in problems for value in values]
    owners = [index for index, values in enumerate(problems) for _ in values]
    layout = Layout.from_shapes([t.shape for t in tensors], 4, problems=owners)
    squares = nominal.mean_squares(pack(tensors, layout), layout)
    found = np.array(nominal.log_sizes(squares, layout, rate))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)


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
        packed = pack(values, layout)
        squares = nominal.mean_squares(packed, layout)
        log_size = nominal.log_sizes(squares, layout, loose)
        state = initial_state(layout, meta, config, math.log(1e-2), log_size)
        for gradient in gradients:
            gradient = pack(gradient, layout)
            packed, _, state = update(packed, gradient, state, layout, meta, config)
        ends.append(np.array(packed))
    np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="all inputs of the other"):
        with_more_inputs(widened, wider, weights.config)


def test_each_problem_follows_its_own_horizon():
    weights = perturbed_weights(nominal=dataclasses.replace(RATE, **OF_HORIZON))
    meta = weights.meta_parameters
    values, gradients = values_and_gradients(steps=4)
    layout = Layout.from_shapes(SHAPES * 3, 4, problems=np.repeat(range(3), 3))
    packed = pack(values * 3, layout)
    squares = nominal.mean_squares(packed, layout)
    sizes = nominal.log_sizes(squares, layout, RATE)
    state = initial_state(layout, meta, weights.config, math.log(1e-2), sizes)
    totals = np.array([4, 0, 10], np.float32)
    for step, gradient in enumerate(gradients):
        horizon = nominal.Horizon(totals, np.float32(step))
        gradient = pack(gradient * 3, layout)
        result = update(
            packed, gradient, state, layout, meta, weights.config, horizon=horizon
        )
        packed, state = result.values, result.state
    found = unpack(np.array(packed), layout)
    for index, total_steps in enumerate(totals):
        expected = OptimizerByHand(values, weights, 1e-2, total_steps=total_steps)
        for gradient in gradients:
            expected.call(gradient)
        assert_same(found[3 * index :][:3], expected.values)


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
        ({"horizon_shallow_tensors": -1.0}, "horizon_shallow_tensors must be .* above"),
        ({"horizon_warmup": -0.1}, "horizon_warmup must be .* 0 or more"),
        ({"horizon_warmup": 1.0}, "horizon_warmup must be .* below 1"),
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
        ({"narrow_width": -1}, "must be a finite number, above 0"),
        ({"height": 1.0}, "has the fields"),
    ],
)
def test_bad_nominal_rates(fields, message):
    with pytest.raises(ValueError, match=message):
        NominalRate.from_value(fields)
