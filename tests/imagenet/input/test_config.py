"""Settings of the data that are out of their range."""

import pytest

from imagenet.input.data import DataConfig

SIZE = 32


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dataset": "cifar10", "num_images": 5}, "num_images must be left out"),
        ({"data_dir": ""}, "data_dir must name a folder"),
        ({"image_size": 31}, "image_size must be .*32 or more. Received: .*31"),
        ({"seed": -1}, "seed must be .*0 or more"),
        ({"seed": 2**31}, "seed must be .*at most"),
        ({"min_crop_area": 0.0}, "min_crop_area must be .*above 0 and at most 1"),
        ({"num_images": 3}, "num_images must be num_classes or more"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"data_dir": "data", "image_size": SIZE, **changes})
