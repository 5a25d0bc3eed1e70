"""Textures as functions of the plane: where which of two tones lies.

Each takes an object's own coordinates `x` and `y`, float32 `[rows, columns]`, so that
the texture turns and grows with it, and a NumPy generator for its pitch and phase; it
returns how much of the second tone there is, 0 to 1.
"""

import numpy as np


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
