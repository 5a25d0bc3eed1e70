"""The equations of `docs/mathematics.md`, the code that names them, and plain NumPy."""

import ast
import dataclasses
import pathlib
import re

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.rule import nominal_rate
from learned_optimizer.rule.layout import Layout, pack, rows_of_blocks, unpack
from learned_optimizer.rule.meta_parameters import with_more_inputs
from learned_optimizer.rule.state import initial_state
from tests.arrays import assert_close
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule import numpy_rule
from tests.learned_optimizer.states import update

ROOT = pathlib.Path(__file__).parents[3]
NO_RATES = dict(dynamic_output_scale=False, relative_learning_rate=False)
NOMINAL = dict(ratio=0.5, memory=3, decay_steps=2, power=0.7)
NOMINAL |= dict(largest=1.2, shallow_tensors=2, lowest=-1.5, highest=0.25)
HORIZON = dict(horizon_peak=2.0, horizon_power=0.5, horizon_decay=0.5)
HORIZON |= dict(fall_start=0.4, fall_power=2.0, fall_end=0.1)
# Every switch of `Config` away from its default, alone or with what it needs.
SWITCHES = {
    "defaults": {},
    "three levels of other sizes": dict(level_sizes=(4, 6, 3)),
    "two levels": dict(level_sizes=(4, 6)),
    "one level": dict(level_sizes=(5,)),
    "two timescales": dict(gradient_timescales=2),
    "one timescale": dict(gradient_timescales=1),
    "attention": dict(attention=True),
    "absolute rates": dict(relative_learning_rate=False),
    "mean over tensors": dict(learning_rate_mean="tensor"),
    "no log mean squares": dict(log_mean_squares=False),
    "no products": dict(gradient_products=False),
    "no extra inputs": dict(
        gradient_products=False, log_mean_squares=False, relative_learning_rate=False
    ),
    "no shortcut": dict(gradient_shortcut=False),
    "rate shortcut": dict(learning_rate_shortcut=True),
    "extreme indicator": dict(extreme_indicator=True),
    "no output scale": NO_RATES,
    "no output scale, attention": dict(attention=True, **NO_RATES),
    "fixed decays": dict(learnable_decay=False),
    "fixed input decay": dict(learnable_input_decay=False),
    "decays of mean squares": dict(multiple_scale_decays=True),
    "fixed start": dict(learnable_start=False),
    "rate weights": dict(zero_learning_rate_weights=False),
    "bounded rates": dict(max_log_learning_rate=-4.0),
    "last tensor": dict(global_rnn_input="last_tensor"),
    "nominal": dict(nominal=NOMINAL),
    "nominal, attention": dict(attention=True, nominal=NOMINAL),
    "odd direction": dict(odd_direction=True),
    "odd": dict(odd_direction=True, absolute_inputs=True, attention=True),
    "decline": dict(gradient_decline=True, nominal=NOMINAL | dict(decline=0.9)),
    "horizon": dict(nominal=NOMINAL | HORIZON),
    "horizon, deep": dict(nominal=NOMINAL | dict(horizon_shallow_tensors=0.5)),
    "horizon, deep alone": dict(
        nominal=NOMINAL | dict(shallow_tensors=None, horizon_shallow_tensors=1.5)
    ),
    "wide": dict(nominal=NOMINAL | dict(narrow_width=1.5)),
    "horizon, warm-up": dict(nominal=NOMINAL | dict(horizon_warmup=0.6)),
    "horizon, seen": dict(horizon_input=True, nominal=NOMINAL),
    "no horizon to see": dict(horizon_input=True, nominal=NOMINAL),
}
SHIPPED = ("bootstrap-v1", *(f"default-v{version}" for version in range(1, 6)))


@pytest.mark.parametrize("name", [*SWITCHES, *SHIPPED])
def test_the_rule_is_that_in_plain_numpy(name):
    switches = SWITCHES.get(name)
    weights = load_weights(name) if name in SHIPPED else perturbed_weights(**switches)
    config, meta = weights.config, weights.meta_parameters
    w = numpy_rule.float64(meta)
    generator = np.random.default_rng(0)
    shapes = [(2, 3), (5,), (4, 1)]
    start = [np.float32(generator.normal(size=shape)) for shape in shapes]
    rates = (-5.0, -3.0, 0.0)
    sizes = numpy_rule.log_sizes(start, config.nominal)
    starts = zip(start, rates, sizes, strict=True)
    tensors = [
        numpy_rule.initial_tensor(w, config, x.size, *rest) for x, *rest in starts
    ]
    layout = Layout.from_shapes(shapes, block_size=4)  # with padding
    values = pack(start, layout)
    rates = [np.full(s, r) for s, r in zip(shapes, rates, strict=True)]
    state = initial_state(layout, meta, config, pack(rates, layout)[None])
    squares = nominal_rate.mean_squares(values, layout)
    global_state = numpy_rule.initial_global_state(w, config)
    wanted = [np.float64(value.ravel()) for value in start]
    deviations = set()
    total_steps = 4 if name.startswith("horizon") else 0
    for step in range(3):
        # Of sizes a million apart: the scaling takes it away.
        gradients = [
            np.float32(generator.normal(size=shape) * size)
            for shape, size in zip(shapes, (1e3, 1e-3, 1.0), strict=True)
        ]
        result = update(
            *(values, pack(gradients, layout), state, layout, meta, config),
            mean_squares=squares,
            horizon=nominal_rate.Horizon(np.float32(total_steps), np.float32(step)),
        )
        values, state = result.values, result.state
        flat = [gradient.ravel() for gradient in gradients]
        arguments = (w, config, tensors, global_state, flat, total_steps)
        global_state = numpy_rule.step(*arguments)
        deviations |= {x for tensor in tensors for x in tensor.get("deviation", ())}
        before = wanted
        wanted, attended = (
            [value - each[kind] for value, each in zip(before, tensors, strict=True)]
            for kind in ("step", "attended_step" if config.attention else "step")
        )
    for packed, arrays in ((values, wanted), (result.attended_values, attended)):
        found = [np.ravel(tensor) for tensor in unpack(packed, layout)]
        assert_close(found, arrays, rtol=2e-5, atol=2e-6)
    assert_same_state(state, tensors, global_state, layout)
    if name.startswith("nominal"):
        low, high = NOMINAL["lowest"], NOMINAL["highest"]
        assert (min(deviations), max(deviations)) == pytest.approx((low, high))
        assert any(low + 0.1 < deviation < high - 0.1 for deviation in deviations)
    for array, before in zip(wanted, start, strict=True):
        assert np.abs(array - before.ravel()).max() > 1e-3


ODD = dict(odd_direction=True, absolute_inputs=True)


@pytest.mark.parametrize(
    "switches, is_odd",
    [
        (ODD, True),
        (ODD | dict(attention=True, gradient_timescales=2), True),
        (ODD | dict(gradient_decline=True, nominal=NOMINAL), True),
        (ODD | dict(gradient_products=False, log_mean_squares=False), True),
        (dict(odd_direction=True), False),
        (dict(absolute_inputs=True), False),
        ({}, False),
    ],
)
def test_a_step_changes_its_sign_with_the_parameters(switches, is_odd):
    """`theta -> -theta`, `g -> -g` gives the negative step, exactly."""
    weights = perturbed_weights(**switches)
    config, meta = weights.config, weights.meta_parameters
    generator = np.random.default_rng(1)
    shapes = [(2, 3), (5,), (4, 1)]
    layout = Layout.from_shapes(shapes, block_size=4)
    # Each element has a sign of its own.
    signs = [generator.choice([-1.0, 1.0], size=shape) for shape in shapes]
    start = [generator.normal(size=shape) for shape in shapes]
    slopes = [[generator.normal(size=shape) for shape in shapes] for _ in range(5)]

    def run(signs):
        def packed(arrays):
            arrays = [a * s for a, s in zip(arrays, signs, strict=True)]
            return pack([np.float32(array) for array in arrays], layout)

        values, attended = packed(start), []
        squares = nominal_rate.mean_squares(values, layout)
        state = initial_state(layout, meta, config, -4.0)
        for gradients in slopes:
            result = update(
                *(values, packed(gradients), state, layout, meta, config),
                weight_decay=np.full(len(shapes), 0.1, np.float32),
                mean_squares=squares,
            )
            values, state = result.values, result.state
            attended.append(np.array(packed(unpack(result.attended_values, layout))))
        return np.array(packed(unpack(values, layout))), attended

    plain, attended = run([np.ones(shape) for shape in shapes])
    mirrored, mirrored_attended = run(signs)
    assert np.array_equal(plain, mirrored) == is_odd
    assert np.array_equal(attended, mirrored_attended) == is_odd


def test_todays_weights_begin_an_odd_direction_with_their_shortcut():
    weights = load_weights("default-v3")
    config = dataclasses.replace(weights.config, odd_direction=True)
    odd = with_more_inputs(weights.meta_parameters, weights.config, config)
    assert not odd["direction_coefficients"].any() and "direction_weights" not in odd
    layout = Layout.from_shapes([(3, 4)], block_size=4)
    generator = np.random.default_rng(0)
    values = gradient = generator.normal(size=(3, 4)).astype(np.float32)
    squares = nominal_rate.mean_squares(values, layout)
    moved = []
    for meta, its in ((weights.meta_parameters, weights.config), (odd, config)):
        state = initial_state(layout, meta, its, -4.0)
        result = update(
            *(values, gradient, state, layout, meta, its), mean_squares=squares
        )
        moved.append(np.array(result.values))
    np.testing.assert_allclose(*moved, rtol=1e-6)


def assert_same_state(state, tensors, global_state, layout):
    near = dict(rtol=1e-4, atol=2e-5)
    assert_close(np.ravel(state.global_state), global_state, **near)
    for index, tensor in enumerate(tensors):
        found = np.array(state.tensor_state)[:, index]
        assert_close(found, tensor["tensor_state"], **near)
        for name in ("hidden_state", "gradient_averages", "mean_squares"):
            blocks = np.array(getattr(state, name))[:, layout.blocks_of(index)]
            rows = rows_of_blocks(blocks, layout.shapes[index])
            scale = max(1e-12, np.abs(tensor[name]).max())
            assert_close(rows / scale, tensor[name] / scale, **near)


def test_every_switch_of_the_architecture_is_there():
    fields = {field for switches in SWITCHES.values() for field in switches}
    assert fields == set(load_weights("default").config.__dataclass_fields__)


def test_the_numbers_of_equations_are_those_of_the_page():
    text = (ROOT / "docs" / "mathematics.md").read_text()
    numbers = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", text)]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    on_page = {
        int(number): line.rstrip(".").partition(": ")[2].strip("`")
        for line in re.findall(r"^\(\d+\).*?: `[\w.]+`", text, re.MULTILINE)
        for number in re.findall(r"\((\d+)\)", line)
    }
    in_code = {}
    for path in (ROOT / "learned_optimizer" / "rule").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            named = re.search(r"Equations? ([\d, and]+)\.$", summary)
            for number in re.findall(r"\d+", named.group(1)) if named else ():
                assert int(number) not in in_code, number
                in_code[int(number)] = f"{path.stem}.{node.name}"
    assert in_code == on_page
    assert sorted(on_page) == numbers
