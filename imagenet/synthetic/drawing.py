"""Images drawn from numbers: labelled, endless, and not told apart at a glance.

A class is a combination of a shape, a texture and a range of hues. Any one of the
three is shared by many classes, so none of them alone gives the class away; where the
object lies, how large it is, how it is turned, what lies around it, the background,
the light and the noise are drawn for each image. NumPy alone, so that programs without
TensorFlow can draw in memory.
"""

import colorsys
from typing import NamedTuple

import numpy as np

from imagenet.synthetic.patterns import SHAPES, TEXTURES, smooth_noise

# Centres of hue ranges, as fractions of the colour circle, and their half width. The
# centres are spaced as the eye tells hues apart, not evenly.
HUES = {"red": 0.0, "yellow": 0.14, "green": 0.36, "blue": 0.6, "magenta": 0.83}
HUE_HALF_WIDTH = 0.045
MAX_CLASSES = len(SHAPES) * len(TEXTURES) * len(HUES)
# Sides in pixels where no size is asked for.
MIN_SIDE, MAX_SIDE = 96, 160
# Images of a validation set are numbered from here on, so that none is also a
# training image.
FIRST_VALIDATION_INDEX = 1 << 40
# Labels count through the combinations with this stride, prime to their number: then
# any few labels in a row already mix shapes, textures and hues.
_STRIDE = 389


class Combination(NamedTuple):
    """What the images of a class have in common, by name."""

    shape: str
    texture: str
    hue: str


class _Object(NamedTuple):
    """A drawn object: its combination and where it lies, in pixels and radians."""

    combination: Combination
    row: float
    column: float
    radius: float
    angle: float


def combination(label: int) -> Combination:
    """The combination that a label stands for, whatever the number of classes."""
    number = label * _STRIDE % MAX_CLASSES
    number, shape = divmod(number, len(SHAPES))
    hue, texture = divmod(number, len(TEXTURES))
    return Combination(list(SHAPES)[shape], list(TEXTURES)[texture], list(HUES)[hue])


def draw(label, index, size=None, seed=0) -> np.ndarray:
    """The image of a label with an index, both from 0, the same for the same arguments.

    It is uint8 `[height, width, 3]`, RGB. Both sides have `size` pixels, 8 or more; by
    default they are drawn from `MIN_SIDE` to `MAX_SIDE`. Another seed draws other
    images of the same classes.
    """
    random = np.random.default_rng([seed, label, index])
    height = width = size
    if size is None:
        height, width = map(int, random.integers(MIN_SIDE, MAX_SIDE + 1, 2))
    image = _background(height, width, random)
    behind, before = random.integers(3, 8), random.integers(0, 3)
    for _ in range(behind):
        _paint(image, _distractor(height, width, random), random)
    _paint(image, _subject(combination(label), height, width, random), random)
    for _ in range(before):
        _paint(image, _distractor(height, width, random), random)
    return _photograph(image, random)


def _background(height, width, random):
    """Two colours that blend into each other, float32 `[height, width, 3]`."""
    first, second = (_colour(random.uniform(), random, 0.6) for _ in range(2))
    blend = smooth_noise(height, width, random.integers(2, 7), random)[..., None]
    return (first + blend * (second - first)).astype(np.float32)


def _colour(hue, random, max_saturation=1.0):
    """RGB in 0..1 of a hue, neither grey (unless told) nor black."""
    saturation = random.uniform(max_saturation - 0.45, max_saturation)
    return np.float32(colorsys.hsv_to_rgb(hue % 1, saturation, random.uniform(0.5, 1)))


def _subject(combination, height, width, random):
    side = min(height, width)
    radius = side * random.uniform(0.24, 0.42)
    # Up to a tenth of it may be outside the picture.
    margin = 0.9 * radius
    return _Object(
        combination,
        random.uniform(margin, height - margin),
        random.uniform(margin, width - margin),
        radius,
        random.uniform(0, 2 * np.pi),
    )


def _distractor(height, width, random):
    tables = (SHAPES, TEXTURES, HUES)
    names = (list(names)[random.integers(len(names))] for names in tables)
    return _Object(
        Combination(*names),
        random.uniform(0, height),
        random.uniform(0, width),
        min(height, width) * random.uniform(0.06, 0.14),
        random.uniform(0, 2 * np.pi),
    )


def _paint(image, thing, random):
    """Paints an object onto the image, in place."""
    height, width = image.shape[:2]
    # Every shape lies in the unit circle.
    top, left = (
        max(0, int(centre - thing.radius) - 1) for centre in (thing.row, thing.column)
    )
    bottom = min(height, int(thing.row + thing.radius) + 2)
    right = min(width, int(thing.column + thing.radius) + 2)
    rows = (np.arange(top, bottom, dtype=np.float32) - thing.row) / thing.radius
    columns = (np.arange(left, right, dtype=np.float32) - thing.column) / thing.radius
    cosine, sine = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    x = cosine * columns + sine * rows[:, None]
    y = cosine * rows[:, None] - sine * columns
    # One pixel of transition at the edge.
    inside = SHAPES[thing.combination.shape](x, y) * np.float32(thing.radius)
    coverage = np.clip(inside + 0.5, 0, 1)[..., None]
    blend = TEXTURES[thing.combination.texture](x, y, random)[..., None]
    hue = HUES[thing.combination.hue]
    hue += random.uniform(-HUE_HALF_WIDTH, HUE_HALF_WIDTH)
    first = _colour(hue, random)
    # The other tone of the texture is a shade or a tint of the same hue.
    second = first * 0.3 if random.uniform() < 0.5 else 1 - 0.3 * (1 - first)
    window = image[top:bottom, left:right]
    window += coverage * (first + blend * (second - first) - window)


def _photograph(image, random):
    """Light from one side, contrast, brightness, sensor noise; then uint8."""
    height, width = image.shape[:2]
    direction = random.uniform(0, 2 * np.pi)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.sin(direction)
    columns = np.linspace(-1, 1, width, dtype=np.float32) * np.cos(direction)
    light = 1 + random.uniform(0, 0.4) * (rows + columns).astype(np.float32)
    image *= light[..., None]
    image -= 0.5
    image *= random.uniform(0.7, 1.2)
    image += 0.5 + random.uniform(-0.12, 0.12)
    noise = random.standard_normal(image.shape, np.float32)
    image += random.uniform(0.01, 0.06) * noise
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
