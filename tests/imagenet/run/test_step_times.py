"""What was measured of a step."""

import pytest

from imagenet.run.step_times import StepTimes


def test_the_share_is_that_of_gradients_and_optimizer():
    times = StepTimes(8, 0.5, 0.3, 0.1, 100, 7600)
    assert times.share == pytest.approx(0.25)
    assert times.state_bytes_per_parameter == 76
