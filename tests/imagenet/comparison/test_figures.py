"""What the curves of a figure show."""

import numpy as np

from imagenet.comparison.figures import smoothed


def test_smoothing_is_the_mean_over_the_last():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(smoothed(values, 2), [4.0, 3.0, 4.0, 7.0])
