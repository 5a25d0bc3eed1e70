"""Drawn images: the same from the same numbers, and told apart only by a close look."""

import collections

import numpy as np
import pytest

from imagenet.synthetic import drawing
from imagenet.synthetic.generated import FORMAT
from imagenet.synthetic.patterns import SHAPES, TEXTURES
from tests.conftest import run_python

GRID_Y, GRID_X = np.mgrid[-1.2:1.2:96j, -1.2:1.2:96j].astype(np.float32)


@pytest.mark.parametrize("module", ["drawing", "jpegs", "patterns"])
def test_draws_without_tensorflow(module):
    code = (
        f"import sys, imagenet.synthetic.{module}; "
        "sys.exit(sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    )
    ended = run_python("-c", code)
    assert ended.returncode == 1 and ended.stderr.strip() == "[]", ended.stderr


@pytest.mark.parametrize(
    "change, is_other",
    [
        ({}, False),
        ({"label": 4}, True),
        ({"index": 8}, True),
        ({"index": drawing.FIRST_VALIDATION_INDEX}, True),
        ({"seed": 1}, True),
    ],
)
def test_an_image_follows_from_its_numbers(change, is_other):
    numbers = dict(label=3, index=7, size=48, seed=0)
    first = drawing.draw(**numbers)
    np.random.seed(1)
    second = drawing.draw(**{**numbers, **change})
    assert np.array_equal(first, second) != is_other


def test_sizes():
    for size in (32, 224):
        image = drawing.draw(1, 0, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert image.std() > 10
    sides = [side for index in range(40) for side in drawing.draw(0, index).shape[:2]]
    assert drawing.MIN_SIDE <= min(sides) < 110 and 146 < max(sides) <= drawing.MAX_SIDE


def test_every_class_is_another_combination():
    assert drawing.MAX_CLASSES == 1000
    combinations = {drawing.combination(label) for label in range(1000)}
    assert len(combinations) == 1000


@pytest.mark.parametrize("num_classes", [100, 200, 1000])
def test_no_attribute_alone_gives_the_class_away(num_classes):
    combinations = [drawing.combination(label) for label in range(num_classes)]
    for values in zip(*combinations, strict=True):
        counts = collections.Counter(values)
        assert min(counts.values()) >= num_classes / 25
        assert max(counts.values()) <= 2 * min(counts.values())


def test_shapes_and_textures_are_those_of_this_format():
    """Their means, where each place counts otherwise; see the images below."""
    weights = 2 + GRID_X + 2 * GRID_Y
    inside = [shape(GRID_X, GRID_Y) > 0 for shape in SHAPES.values()]
    found = [(each * weights).mean() for each in inside]
    wanted = [
        [0.773, 0.483, 0.681, 0.375, 0.420],
        [0.774, 0.392, 0.760, 0.616, 0.621],
        [0.538, 0.677, 0.393, 0.740, 0.504],
        [0.383, 0.349, 0.324, 0.514, 0.365],
    ]
    np.testing.assert_allclose(found, np.ravel(wanted), atol=2e-3)
    random = np.random.default_rng
    drawn = [texture(GRID_X, GRID_Y, random(0)) for texture in TEXTURES.values()]
    found = [(each * weights).mean() for each in drawn]
    wanted = [0.000, 1.511, 0.933, 1.003, 0.510, 0.976, 1.017, 0.713, 0.662, 1.109]
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_the_drawn_object_is_of_the_class_of_its_label(monkeypatch):
    things = []
    monkeypatch.setattr(drawing, "_paint", lambda _, thing, __: things.append(thing))
    for label in (0, 3, 999):
        things.clear()
        drawing.draw(label, 0, 64)
        largest = max(things, key=lambda thing: thing.radius)
        assert largest.combination == drawing.combination(label)


# From format 1, 2026-11-28: images by fixed random weights, of every 11th class.
WEIGHTED_MEANS = np.fromstring(
    """
    -0.08 -0.52 0.16 -0.34 -0.68 -0.91 -0.41 -1.41 0.29 -1.33 0.13 -0.89
    -0.79 -0.64 -0.94 -1.42 -0.69 -1.34 -0.52 -0.13 -0.15 -2.15 -1.04
    -0.92 -1.10 -2.14 -0.98 -0.64 -0.93 -0.65 -0.41 -1.09 -1.40 0.23
    -0.54 -1.49 -1.29 -1.08 -0.42 -0.71 -1.37 -0.20 -0.92 -0.18 0.05
    -0.87 -1.08 0.09 -0.82 -0.88 -0.23 -0.64 -0.39 -1.27 -0.46 0.11
    -0.55 -0.02 -1.12 -1.18 -0.97 -1.51 -0.81 -0.45 -0.22 -1.16 -0.12
    -1.68 -1.14 -0.86 -0.33 -1.20 -1.06 -0.05 -0.72 -0.83 -0.11 -1.14
    -0.34 -1.00 -1.09 -0.66 -0.83 -0.82 -0.93 -0.39 -0.65 -1.17 -1.36
    0.12
    """,
    sep=" ",
)


def test_images_are_those_of_this_format():
    """Results name the images by numbers alone: others need another `FORMAT`."""
    assert FORMAT == 1
    weights = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3))
    found = [
        (drawing.draw(11 * k, index, 32, seed=k % 3) * weights).mean()
        for k, index in enumerate((7, drawing.FIRST_VALIDATION_INDEX) * 45)
    ]
    np.testing.assert_allclose(found, WEIGHTED_MEANS, atol=0.01)
