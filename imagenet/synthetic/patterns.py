"""Shapes and textures as functions of the plane.

A shape takes coordinates `x` and `y`, float32 of one shape, and returns about the
distance to its edge, positive inside. All lie within the unit circle and fill much of
it.

A texture takes the coordinates of an object, so that it turns and grows with it, and a
NumPy generator for its pitch and phase; it returns how much of the second of two tones
there is, 0 to 1.
"""

import numpy as np


def _radius(x, y):
    return np.sqrt(x * x + y * y)


def _box(x, y, half_width, half_height):
    return np.minimum(half_width - np.abs(x), half_height - np.abs(y))


def _polygon(x, y, corners):
    sector = 2 * np.pi / corners
    within = np.arctan2(y, x) % sector - sector / 2
    return 0.98 * np.cos(sector / 2) - _radius(x, y) * np.cos(within)


def _wavy(x, y, count, inner, outer, power=1):
    """Between two radii, `count` times around."""
    wave = np.abs(np.cos(np.arctan2(y, x) * (count / 2))) ** power
    return inner + (outer - inner) * wave - _radius(x, y)


def _star(x, y):
    # Straight edges: a five-pointed star is a line folded over ten times.
    sector = 2 * np.pi / 5
    within = np.abs(np.arctan2(y, x) % sector - sector / 2)
    across = _radius(x, y)
    along, beside = across * np.cos(within), across * np.sin(within)
    # From the inner corner, at angle 0 of the fold, to the point at half a sector.
    inner, outer = 0.4, 0.98
    end_along, end_beside = outer * np.cos(sector / 2), outer * np.sin(sector / 2)
    edge_along, edge_beside = end_along - inner, end_beside
    length = np.hypot(edge_along, edge_beside)
    return (edge_along * beside - edge_beside * (along - inner)) / length


def _heart(x, y):
    # A square on its corner, with a half disc on each of its two upper sides.
    half_side, height = 0.48, 0.12
    along, across = 0.707 * (x + y - height), 0.707 * (x - y + height)
    offset = 0.707 * half_side
    return np.maximum(
        half_side - np.maximum(np.abs(along), np.abs(across)),
        half_side - _radius(np.abs(x) - offset, y - height + offset),
    )


def _arrow(x, y):
    shaft = np.minimum(0.2 - np.abs(y), np.minimum(x + 0.92, 0.2 - x))
    head = np.minimum(0.707 * (0.92 - x - np.abs(y)), x - 0.1)
    return np.maximum(shaft, head)


SHAPES = {
    "disc": lambda x, y: 0.85 - _radius(x, y),
    "ellipse": lambda x, y: 0.5 * (0.95 - _radius(x, 2 * y)),
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "bar": lambda x, y: _box(x, y, 0.92, 0.3),
    "triangle": lambda x, y: _polygon(x, y, 3),
    "pentagon": lambda x, y: _polygon(x, y, 5),
    "star": _star,
    "sun": lambda x, y: _wavy(x, y, 12, 0.62, 0.96),
    "trefoil": lambda x, y: 0.5 * _wavy(x, y, 3, 0.1, 0.98, 0.7),
    "flower": lambda x, y: _wavy(x, y, 6, 0.35, 0.96),
    "plus": lambda x, y: np.maximum(_box(x, y, 0.9, 0.26), _box(x, y, 0.26, 0.9)),
    "ring": lambda x, y: 0.22 - np.abs(_radius(x, y) - 0.72),
    "crescent": lambda x, y: np.minimum(
        0.92 - _radius(x, y), _radius(x - 0.42, y) - 0.68
    ),
    "half disc": lambda x, y: np.minimum(0.95 - _radius(x, y), y + 0.1),
    "heart": _heart,
    "arrow": _arrow,
    "letter L": lambda x, y: np.maximum(
        _box(x + 0.36, y, 0.2, 0.8), _box(x, y - 0.6, 0.56, 0.2)
    ),
    "letter T": lambda x, y: np.maximum(
        _box(x, y + 0.45, 0.74, 0.2), _box(x, y - 0.1, 0.2, 0.8)
    ),
    "letter U": lambda x, y: np.maximum(
        _box(np.abs(x) - 0.5, y, 0.2, 0.7), _box(x, y - 0.5, 0.7, 0.2)
    ),
    "hourglass": lambda x, y: np.minimum(
        0.75 - np.abs(y), 0.12 + 0.62 * np.abs(y) - np.abs(x)
    ),
}


def smooth_noise(height, width, cells, random):
    """Random values on a grid of `cells` + 1 knots a side, joined linearly."""
    knots = random.random((cells + 1, cells + 1), np.float32)
    return _hat_weights(height, cells) @ knots @ _hat_weights(width, cells).T


def _hat_weights(size, cells):
    """`[size, cells + 1]`: how much each knot counts at each pixel."""
    places = np.linspace(0, cells, size, dtype=np.float32)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(cells + 1, dtype=np.float32)))


def _pitch(random):
    """Radians a unit of length: 1.8 to 2.6 periods a radius."""
    return np.float32(2 * np.pi * random.uniform(1.8, 2.6))


def _phase(random):
    return np.float32(random.uniform(0, 2 * np.pi))


def _edge(wave, sharpness=3):
    """A wave around 0 as tones, with soft edges."""
    return np.clip(0.5 + sharpness * wave, 0, 1)


def _checks(x, y, random):
    pitch = _pitch(random)
    return _edge(
        np.sin(pitch * x + _phase(random)) * np.sin(pitch * y + _phase(random))
    )


def _dots(x, y, random):
    pitch = _pitch(random) * np.float32(1.2)
    waves = np.cos(pitch * x + _phase(random)) + np.cos(pitch * y + _phase(random))
    return _edge(waves - 0.7)


def _waves(x, y, random):
    bent = x + 0.16 * np.sin(np.float32(1.5 * np.pi) * y + _phase(random))
    return _edge(np.sin(_pitch(random) * bent))


def _grid(x, y, random):
    pitch = _pitch(random)
    lines = np.maximum(
        np.cos(pitch * x + _phase(random)), np.cos(pitch * y + _phase(random))
    )
    return _edge(lines - 0.8, 4)


def _bricks(x, y, random):
    rows = y * (_pitch(random) / np.float32(np.pi)) + _phase(random)
    columns = x * np.float32(1.8) + 0.5 * (np.floor(rows) % 2)
    joint = np.minimum(np.abs(rows % 1 - 0.5), 1.8 * np.abs(columns % 1 - 0.5))
    return _edge(0.12 - joint, 8)


def _speckles(x, y, random):
    noise = smooth_noise(*x.shape, 12, random)
    return _edge(noise - 0.5, 4)


TEXTURES = {
    "plain": lambda x, y, random: np.zeros_like(x),
    "gradient": lambda x, y, random: np.clip(0.5 + 0.6 * y, 0, 1),
    "stripes": lambda x, y, random: _edge(np.sin(_pitch(random) * x + _phase(random))),
    "checks": _checks,
    "dots": _dots,
    "rings": lambda x, y, random: _edge(
        np.sin(_pitch(random) * np.sqrt(x * x + y * y) + _phase(random))
    ),
    "waves": _waves,
    "grid": _grid,
    "bricks": _bricks,
    "speckles": _speckles,
}
