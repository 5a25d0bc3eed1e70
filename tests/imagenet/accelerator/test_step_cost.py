"""What a step costs: shapes, and what is counted."""

import math

import pytest

pytest.importorskip("jax", reason="JAX is not installed: `make backends`")


def test_vit_b16_has_86_6_million_parameters():
    from imagenet.accelerator.step_cost import shapes_of

    assert sum(map(math.prod, shapes_of("vit_b16"))) == 86_567_656


@pytest.mark.backend("jax")
def test_adam_on_a_network():
    import keras

    from imagenet.accelerator import step_cost as module
    from imagenet.models import MODELS
    from tests.imagenet import tiny

    assert "tiny" in MODELS and tiny
    shapes = module.shapes_of("tiny")
    parameters = sum(map(math.prod, shapes))
    cost = module.step_cost("tiny", "adam", keras.optimizers.Adam(), 2.0)
    assert cost["parameters"] == parameters
    # Two moments, a counter and a rate.
    assert cost["state_bytes"] == 8 * parameters + 8
    # Parameters and state twice, gradients once.
    assert cost["moved_bytes"] == 28 * parameters + 16
    assert cost["least_milliseconds"] == pytest.approx(cost["moved_bytes"] / 2e6)
    assert cost["milliseconds"] > 0
