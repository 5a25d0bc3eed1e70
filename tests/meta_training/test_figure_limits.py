"""Figures show the curves, not the one that flew off."""

import math

import pytest

from meta_training.figure_limits import highest_shown


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], None),
        ([math.inf, math.nan], None),
        ([3.0, 2.0, 1.0], None),
        ([*[2.0] * 99, 20.0], 2.2),
        ([*[2.0] * 98, 20.0, math.inf], 2.2),
        # As many as these are no outliers.
        ([*[2.0] * 90, *[20.0] * 10], None),
    ],
)
def test_a_few_losses_that_fly_off_are_left_out(losses, expected):
    assert highest_shown(losses) == (expected and pytest.approx(expected))
