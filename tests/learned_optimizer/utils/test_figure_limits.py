"""Figures show the curves, not the one that flew off."""

import math

import pytest

from learned_optimizer.utils.figure_limits import shown_limits


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], (None, None)),
        ([math.inf, math.nan], (None, None)),
        ([3.0, 2.0, 1.0], (None, None)),
        ([*[2.0] * 99, 20.0], (1.99, 2.2)),
        ([*[2.0] * 98, 20.0, math.inf], (1.99, 2.2)),
        # As many as these are no outliers.
        ([*[2.0] * 90, *[20.0] * 10], (None, None)),
    ],
)
def test_a_few_losses_that_fly_off_are_left_out(losses, expected):
    assert shown_limits(losses) == pytest.approx(expected)
