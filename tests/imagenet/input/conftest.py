"""The images that the tests of the input read."""

import pytest

from imagenet.input.config import DataConfig
from imagenet.input.data import open_images


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A few drawn images."""
    return DataConfig(
        "generated",
        str(tmp_path_factory.mktemp("data")),
        32,
        num_classes=5,
        num_images=23,
        num_validation_images=5,
    )


@pytest.fixture(scope="module")
def data(settings):
    """The same, opened."""
    return open_images(settings)
