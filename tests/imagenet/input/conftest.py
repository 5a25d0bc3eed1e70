"""The images that the tests of the input read."""

import pytest

from imagenet.input.config import DataConfig
from imagenet.input.data import open_images
from imagenet.input.imagenet2012 import imagenet_builder
from tests.imagenet.small_data import put_tars, train_tar, validation_tar


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A few drawn images."""
    counts = dict(num_classes=5, num_images=23, num_validation_images=5)
    return DataConfig("generated", str(tmp_path_factory.mktemp("data")), 32, **counts)


@pytest.fixture(scope="module")
def data(settings):
    """The same, opened."""
    return open_images(settings)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with tar files, some images bad, and what TFDS made of them."""
    data_dir = tmp_path_factory.mktemp("imagenet")
    put_tars(data_dir, train_tar(), validation_tar())
    imagenet_builder(data_dir)
    return data_dir
