"""Crops, sizes and colours."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imagenet.input import augmentation
from tests.imagenet.small_data import smooth_picture

SIZE = 32


@pytest.mark.parametrize("size", [64, 100, 32, 20])
def test_resizing_passes_over_no_pixel(size):
    # Stripes of a pixel: sampled alone they are black or white.
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[::2] = 255
    wanted = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    resized = augmentation.resize(tf.constant(picture), size).numpy()
    assert resized.shape == (size, size, 3)
    assert resized.mean() == pytest.approx(127.5, abs=1)
    if size <= 50 or size == 100:
        assert np.abs(resized - np.asarray(wanted, np.float32)).max() < 2


def test_training_crops_are_parts_of_the_image_as_asked_for():
    height, width = 300, 400
    windows = np.array(
        [
            augmentation.random_window([height, width, 3], [7, number], 0.05)
            for number in range(300)
        ]
    )
    top, left, rows, columns = windows.T
    assert min(top.min(), left.min()) >= 0
    assert np.all(top + rows <= height) and np.all(left + columns <= width)
    # Rounding to whole pixels moves them a little.
    area = rows * columns / (height * width)
    assert 0.045 < area.min() < 0.08 and area.max() > 0.75
    ratio = columns / rows
    assert 0.74 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.35
    # Sides are uniform between the bounds, but for those that do not fit.
    assert 0.25 < np.median(area) < 0.35
    assert len({tuple(window) for window in windows}) > 290


def test_distorted_colours_stay_in_range():
    picture = tf.constant(smooth_picture(), tf.float32)
    seeds = [tf.constant([1, number], tf.int64) for number in range(4)]
    distorted = [augmentation.distort_colours(picture, seed).numpy() for seed in seeds]
    for image in distorted:
        assert image.min() >= 0 and image.max() <= 255
        assert np.abs(image - picture).mean() > 2
    assert len({image.tobytes() for image in distorted}) == 4
