"""Tensors through some steps of the rule in any packing, compared in none."""

import dataclasses
import math

import numpy as np

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.state import State, initial_state
from tests.arrays import assert_close
from tests.learned_optimizer.states import update

SHAPES = [(4, 3), (5,), (), (2, 1), (9,)]
STEPS = 4
FIELDS = ("hidden_state", "gradient_averages", "mean_squares", "log_learning_rate")
NO_RATES = dict(dynamic_output_scale=False, relative_learning_rate=False)
CONFIGS = {
    "default": {},
    "attention": dict(attention=True),
    "two levels": dict(level_sizes=(4, 6), gradient_timescales=2),
    "one level": dict(level_sizes=(5,), extreme_indicator=True),
    "last tensor": dict(global_rnn_input="last_tensor"),
    "tensor mean": dict(learning_rate_mean="tensor", multiple_scale_decays=True),
    "nominal": dict(nominal=dict(ratio=0.5, memory=3.0, decay_steps=2.0)),
    "no output scale": NO_RATES,
    "attention, no output scale": dict(attention=True, **NO_RATES),
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

        def draw(mean=0.0):
            normal = generator.standard_normal
            return [np.float32(mean + normal(shape)) for shape in shapes]

        return cls(draw(), [draw() for _ in range(steps)], draw(-3.0))

    def beside(self, other):
        """These tensors and others behind them."""
        return Inputs(
            self.values + other.values,
            [a + b for a, b in zip(self.gradients, other.gradients, strict=True)],
            self.rates + other.rates,
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


def assert_same_tensor(one, other):
    assert_close(one, other, rtol=2e-5, atol=3e-6)


def assert_same_results(one, other):
    for i in range(len(other.values)):
        assert_same_tensor(one.tensor(i), other.tensor(i))
    found, wanted = (result.state["global_state"] for result in (one, other))
    np.testing.assert_allclose(found, wanted, atol=3e-6)
