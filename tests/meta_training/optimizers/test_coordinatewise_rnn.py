"""The coordinate-wise RNN against its equations."""

import numpy as np
import pytest

from learned_optimizer.rule.layout import Layout
from meta_training.optimizers import CoordinatewiseRNN
from tests.arrays import assert_close
from tests.meta_training.optimizers.steps import SMALL, random_gradients, trajectory


def logistic(x):
    return 1 / (1 + np.exp(-x))


def one_coordinate(optimizer, meta, gradients, rate):
    """Positions of one parameter from 1, in float64, one number at a time."""
    sizes = optimizer.cell_sizes
    states = np.split(meta["start"][0], np.cumsum(sizes)[:-1])
    mean_square, decay, position, found = 1.0, 1.0, 1.0, []
    for gradient in gradients:
        mean_square = (1 - decay) * (gradient**2 + 1e-12) + decay * mean_square
        output = np.array([np.arcsinh(gradient / np.sqrt(mean_square + 1e-16))])
        for i, size in enumerate(sizes):
            h = states[i]
            gates = logistic(
                np.concatenate([output, h]) @ meta[f"cell_{i}_gates_kernel"]
                + meta[f"cell_{i}_gates_bias"]
            )
            reset, keep = gates[:size], gates[size:]
            candidate = np.tanh(
                np.concatenate([output, reset * h]) @ meta[f"cell_{i}_candidate_kernel"]
                + meta[f"cell_{i}_candidate_bias"]
            )
            output = states[i] = keep * h + (1 - keep) * candidate
        readouts = {
            name: logistic((output @ meta[f"{name}_weights"] + meta[f"{name}_bias"])[0])
            for name in ("decay", "learning_rate")
            if f"{name}_bias" in meta
        }
        decay = readouts.get("decay", logistic(2.2))
        rate = rate * 2 * readouts.get("learning_rate", 0.5)
        position = position - rate * (output @ meta["direction_weights"])[0]
        found.append(position)
    return np.array(found)


@pytest.mark.parametrize("on", [True, False], ids=["switches on", "switches off"])
def test_coordinatewise_rnn_is_its_equations(on):
    optimizer = CoordinatewiseRNN(
        (4, 3),
        learnable_decay=on,
        dynamic_output_scale=on,
        zero_learning_rate_weights=False,
    )
    generator = np.random.default_rng(1)
    meta = {
        name: value + 0.3 * generator.normal(size=value.shape).astype(np.float32)
        for name, value in optimizer.initial_meta_parameters(0).items()
    }
    gradients = random_gradients(6)
    found, _ = trajectory(optimizer, meta, gradients, rate=0.05)
    meta = {name: value.astype(float) for name, value in meta.items()}
    for tensor, element in [(0, (1,)), (1, (1, 0)), (2, (4,))]:
        wanted = one_coordinate(
            optimizer, meta, [float(g[tensor][element]) for g in gradients], 0.05
        )
        ours = [parts[tensor][element] for parts in found]
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
        assert np.ptp(wanted) > 1e-3


def test_chunks_of_the_coordinatewise_rnn_are_the_whole():
    optimizer = SMALL["coordinatewise_rnn"]
    meta = optimizer.initial_meta_parameters(0)
    shapes = [(7,), (3, 5)]
    gradients = random_gradients(3, shapes)
    layouts = [Layout.from_shapes(shapes, 2, chunk) for chunk in (None, 3)]
    assert layouts[1].num_chunks > 1
    whole, chunked = (
        trajectory(optimizer, meta, gradients, layout)[0] for layout in layouts
    )
    assert_close(chunked, whole, rtol=1e-6)
