"""Drawn images: the same from the same numbers, and told apart only by a close look."""

import collections
import itertools
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from imagenet.synthetic import drawing
from imagenet.synthetic.generated import FORMAT
from imagenet.synthetic.shapes import SHAPES
from imagenet.synthetic.textures import TEXTURES

GRID_Y, GRID_X = np.mgrid[-1.2:1.2:96j, -1.2:1.2:96j].astype(np.float32)


@pytest.mark.parametrize("module", ["drawing", "jpegs", "shapes", "textures"])
def test_draws_without_tensorflow(module):
    code = (
        f"import sys, imagenet.synthetic.{module}; "
        "sys.exit(sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.strip() == "[]", ended.stderr


@pytest.mark.parametrize(
    "change, is_other",
    [
        ({}, False),
        ({"num_classes": 1000}, False),
        ({"label": 4}, True),
        ({"index": 8}, True),
        ({"index": drawing.FIRST_VALIDATION_INDEX}, True),
        ({"seed": 1}, True),
    ],
)
def test_an_image_follows_from_its_numbers(change, is_other):
    numbers = dict(label=3, index=7, num_classes=10, size=48, seed=0)
    first = drawing.draw(**numbers)
    np.random.seed(1)
    second = drawing.draw(**{**numbers, **change})
    assert np.array_equal(first, second) != is_other


@pytest.mark.parametrize(
    "size, shape", [(32, (32, 32, 3)), ((40, 70), (40, 70, 3)), (224, (224, 224, 3))]
)
def test_size_asked_for(size, shape):
    image = drawing.draw(1, 0, 10, size)
    assert image.shape == shape and image.dtype == np.uint8
    assert image.std() > 10


def test_sizes_drawn_vary_within_bounds():
    sides = [
        side for index in range(40) for side in drawing.draw(0, index, 2).shape[:2]
    ]
    assert drawing.MIN_SIDE <= min(sides) < 110 and 146 < max(sides) <= drawing.MAX_SIDE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 1}, "`num_classes` must be from 2 to 1000. Received: 1"),
        ({"num_classes": 1001}, "`num_classes` must be from 2 to 1000"),
        ({"label": 10}, "`label` must be from 0 to 9. Received: 10"),
        ({"label": -1}, "`label` must be from 0 to 9"),
        ({"index": -1}, "must not be negative. Received: index=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"size": 4}, "8 pixels or more"),
    ],
)
def test_numbers_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        drawing.draw(**{**dict(label=0, index=0, num_classes=10), **changes})


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


def test_shapes_lie_in_the_unit_circle():
    outside = np.hypot(GRID_X, GRID_Y) > 1
    for name, shape in SHAPES.items():
        inside = shape(GRID_X, GRID_Y) > 0
        assert not np.any(inside & outside), name
        assert inside[~outside].mean() > 0.2, name


def test_shapes_differ_however_they_are_turned():
    upright = {name: shape(GRID_X, GRID_Y) > 0 for name, shape in SHAPES.items()}
    for angle in np.arange(0, 2 * np.pi, np.pi / 8):
        x = np.cos(angle) * GRID_X + np.sin(angle) * GRID_Y
        y = np.cos(angle) * GRID_Y - np.sin(angle) * GRID_X
        turned = {name: shape(x, y) > 0 for name, shape in SHAPES.items()}
        for first, second in itertools.permutations(SHAPES, 2):
            common = upright[first] & turned[second]
            joint = upright[first] | turned[second]
            assert common.sum() / joint.sum() < 0.92, (first, second, angle)


def test_textures_differ():
    drawn = {
        name: texture(GRID_X, GRID_Y, np.random.default_rng(0))
        for name, texture in TEXTURES.items()
    }
    for name, tones in drawn.items():
        assert tones.shape == GRID_X.shape and tones.dtype == np.float32, name
        assert tones.min() >= 0 and tones.max() <= 1, name
    for first, second in itertools.combinations(drawn, 2):
        assert np.abs(drawn[first] - drawn[second]).mean() > 0.1, (first, second)


def test_shapes_and_textures_are_those_of_this_format():
    """Their means, where each place counts otherwise; see the images below."""
    weights = 2 + GRID_X + 2 * GRID_Y
    found = [
        ((shape(GRID_X, GRID_Y) > 0) * weights).mean() for shape in SHAPES.values()
    ]
    wanted = [
        [0.773, 0.483, 0.681, 0.375, 0.420],
        [0.774, 0.392, 0.760, 0.616, 0.621],
        [0.538, 0.677, 0.393, 0.740, 0.504],
        [0.383, 0.349, 0.324, 0.514, 0.365],
    ]
    np.testing.assert_allclose(found, np.ravel(wanted), atol=2e-3)
    found = [
        (texture(GRID_X, GRID_Y, np.random.default_rng(0)) * weights).mean()
        for texture in TEXTURES.values()
    ]
    wanted = [0.000, 1.511, 0.933, 1.003, 0.510, 0.976, 1.017, 0.713, 0.662, 1.109]
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def painted(shape, texture, angle=0.0):
    """A black square of 96 pixels with an object in it; those half covered or more."""
    image = np.zeros((96, 96, 3), np.float32)
    combination = drawing.Combination(shape, texture, "green")
    thing = drawing._Object(combination, 47.5, 47.5, 40.0, angle)
    drawing._paint(image, thing, np.random.default_rng(0))
    return image, image.max(axis=-1) > 0.5 * image.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_has_the_shape_of_its_class(shape):
    places = (np.arange(96, dtype=np.float32) - 47.5) / 40
    upright = SHAPES[shape](places, places[:, None]) > 0
    for angle, wanted in ((0.0, upright), (np.pi / 2, np.rot90(upright, -1))):
        _, covered = painted(shape, "plain", angle)
        assert (covered & wanted).sum() / (covered | wanted).sum() > 0.99, angle


@pytest.mark.parametrize("texture", TEXTURES)
def test_an_object_has_the_texture_of_its_class(texture, monkeypatch):
    """Two tones, where the texture says so."""
    monkeypatch.setitem(
        TEXTURES, texture, lambda x, y, random: (x > 0).astype(np.float32)
    )
    image, _ = painted("disc", texture)
    left, right = image[40:56, 20:46], image[40:56, 50:76]
    assert np.ptp(left, axis=(0, 1)).max() < 1e-6 > np.ptp(right, axis=(0, 1)).max()
    assert np.abs(left[0, 0] - right[0, 0]).max() > 0.1


def test_the_drawn_object_is_of_the_class_of_its_label(monkeypatch):
    things = []
    monkeypatch.setattr(
        drawing, "_paint", lambda image, thing, random: things.append(thing)
    )
    for label in (0, 3, 999):
        things.clear()
        drawing.draw(label, 0, 1000, 64)
        largest = max(things, key=lambda thing: thing.radius)
        assert largest.combination == drawing.combination(label)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (
            (3, 7, 10),
            [
                [123.3, 122.1, 133.7, 140.9],
                [133.4, 110.1, 105.6, 154.1],
                [142.4, 113.9, 123.1, 159.1],
                [150.2, 136.7, 161.9, 147.4],
            ],
        ),
        (
            (0, drawing.FIRST_VALIDATION_INDEX, 1000),
            [
                [159.5, 159.9, 157.5, 148.0],
                [137.4, 120.8, 109.1, 123.3],
                [109.2, 95.8, 95.0, 108.9],
                [77.9, 83.0, 84.5, 95.5],
            ],
        ),
    ],
    ids=["training", "validation"],
)
def test_images_are_those_of_this_format(numbers, wanted):
    """Results name the images by numbers alone: others need another `FORMAT`.

    The numbers are from format 1, 2026-11-26: means over squares of eight pixels.
    """
    assert FORMAT == 1
    image = drawing.draw(*numbers, 32).astype(float)
    thumbnail = image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3, 4))
    np.testing.assert_allclose(thumbnail, wanted, atol=0.5)


def _classes(labels, images_each, first):
    pictures = np.stack(
        [
            drawing.draw(label, first + index, 1000, 32)
            for label in labels
            for index in range(images_each)
        ]
    )
    return pictures / 255.0, np.repeat(np.arange(len(labels)), images_each)


def _hues(pictures):
    """A histogram of hues `[images, 12]`, each pixel by its saturation."""
    flat = pictures.reshape(len(pictures), -1, 3)
    # The usual hexagon: hue as the angle in the plane across the grey axis.
    u = flat[..., 0] - 0.5 * (flat[..., 1] + flat[..., 2])
    v = np.sqrt(0.75) * (flat[..., 1] - flat[..., 2])
    place = ((np.arctan2(v, u) / (2 * np.pi) % 1) * 12).astype(int) % 12
    histograms = np.stack(
        [
            np.bincount(where, weight, 12)
            for where, weight in zip(place, np.hypot(u, v), strict=True)
        ]
    )
    return histograms / histograms.sum(axis=1, keepdims=True)


def _sharing(*attributes):
    """Labels that have these attributes in common with label 0."""
    first = drawing.combination(0)
    return [
        label
        for label in range(drawing.MAX_CLASSES)
        if all(
            getattr(drawing.combination(label), attribute) == getattr(first, attribute)
            for attribute in attributes
        )
    ]


@pytest.mark.parametrize(
    "labels, at_most",
    [
        pytest.param(_sharing("texture", "hue"), 0.25, id="20 shapes"),
        pytest.param(_sharing("shape", "hue"), 0.3, id="10 textures"),
        pytest.param(list(range(20)), 0.35, id="20 classes"),
    ],
)
def test_not_told_apart_at_a_glance(labels, at_most):
    train, train_labels = _classes(labels, 30, 0)
    test, test_labels = _classes(labels, 15, drawing.FIRST_VALIDATION_INDEX)
    classifier = NearestCentroid().fit(train.reshape(len(train), -1), train_labels)
    accuracy = classifier.score(test.reshape(len(test), -1), test_labels)
    assert accuracy < at_most


def test_hue_can_be_learned():
    labels = _sharing("shape", "texture")
    assert len(labels) == 5
    train, train_labels = _classes(labels, 60, 0)
    test, test_labels = _classes(labels, 30, drawing.FIRST_VALIDATION_INDEX)
    classifier = LogisticRegression(C=100, max_iter=1000)
    classifier.fit(_hues(train), train_labels)
    assert classifier.score(_hues(test), test_labels) > 0.6
