"""Meta-optimizers: their steps, bounds and learning rates."""

import numpy as np
import pytest

from meta_training.outer.meta_optimizers import MetaOptimizer, norm


def _adam_change(gradients):
    """Adam's step of length 1 after these gradients, its averages written out."""
    count = len(gradients)
    ages = np.arange(count)[::-1, None]

    def average(decay, values):
        weights = (1 - decay) * decay**ages
        return np.sum(weights * values, axis=0) / (1 - decay**count)

    squares = average(0.999, gradients**2)
    return average(0.9, gradients) / (np.sqrt(squares) + 1e-8)


def _rmsprop_change(gradients):
    """RMSProp's, of which the mean squares start at 1."""
    count = len(gradients)
    ages = np.arange(count)[::-1, None]
    squares = 0.9**count + np.sum(0.1 * 0.9**ages * gradients**2, axis=0)
    return gradients[-1] / np.sqrt(squares + 1e-20)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_meta_optimizers_take_the_steps_of_their_papers(name):
    change = {"adam": _adam_change, "rmsprop": _rmsprop_change}[name]
    # No two alike, so that averages differ from what they are of. The last element's
    # are as small as what Adam adds to a root.
    gradients = np.array([[0.5, -0.25, 1e-8], [-2.0, 1.0, 3e-8], [0.1, 3.0, -2e-8]])
    optimizer = MetaOptimizer(name, 0.1)
    values = {"w": np.array([1.0, -2.0, 0.0], np.float32)}
    expected = values["w"].astype(float)
    state = optimizer.initial_state(values)
    for step, gradient in enumerate(gradients):
        given = {"w": gradient.astype(np.float32)}
        values, state = optimizer.apply(values, given, state, step)
        expected = expected - 0.1 * change(gradients[: step + 1])
        np.testing.assert_allclose(values["w"], expected, rtol=1e-5, err_msg=str(step))


def test_meta_gradients_are_clipped_and_the_learning_rate_decays():
    gradient = {"w": np.array([0.5, -0.25], np.float32)}
    clipped = MetaOptimizer("adam", 0.1, clip_value=0.4, clip_norm=0.1).clip(gradient)
    assert norm(clipped) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(
        clipped["w"][0] / clipped["w"][1], -0.4 / 0.25, rtol=1e-5
    )
    decaying = MetaOptimizer("adam", 0.1, decay_steps=100)
    rates = [decaying.rate(step) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(rates, [0.1, 0.051, 0.002, 0.002])
