"""What the tests of this folder share."""

import numpy as np
import pytest

from learned_optimizer.rule.layout import Layout
from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule.packed import CONFIGS, SHAPES, Inputs, run

# The switches of these are in others too, or in the golden cases.
SLOW_CONFIGS = ("one level", "last tensor", "tensor mean", "no output scale")


@pytest.fixture(
    scope="package",
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
    expected = run(inputs, weights, layout)
    moved, attended = (
        max(np.abs(a - b).max() for a, b in zip(expected.values, other, strict=True))
        for other in (inputs.values, expected.attended)
    )
    assert moved > 1e-2 and (attended > 1e-3) == weights.config.attention
    return weights, inputs, expected
