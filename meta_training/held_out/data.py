"""Data that no meta-training task has, split once and for all into two parts.

`training` is what an optimizer minimises, `test` what accuracy is measured on. The
splits and the random data have fixed seeds, so that every run, checkpoint and set of
weights is judged on the same numbers.
"""

import functools
from typing import NamedTuple

import numpy as np

from meta_training.tasks.base import require_member

_SPLIT_SEED = 0


class SplitData(NamedTuple):
    """Rows to train on and rows to test on.

    Attributes:
        training_inputs: `[rows, ...]` float32.
        training_targets: `[rows]` int32 labels, or `[rows, ...]` float32.
        test_inputs: the same for other rows.
        test_targets: their labels or targets.
    """

    training_inputs: np.ndarray
    training_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray


@functools.cache
def load_data(name: str) -> SplitData:
    """The data set of that name, kept after the first call.

    Raises:
        ValueError: no data set has that name.
    """
    require_member("data set", name, _LOADERS)
    return _LOADERS[name]()


def _digits(shape, as_targets=False):
    """scikit-learn's 1,797 digits of 8 x 8 pixels in [0, 1]; 360 of them to test."""
    data = _sklearn_datasets().load_digits()
    images = (data.images / 16.0).reshape(-1, *shape).astype(np.float32)
    return _split(images, images if as_targets else data.target, 360, data.target)


def _breast_cancer():
    """569 rows of 30 features of very different sizes, standardised; two classes."""
    data = _sklearn_datasets().load_breast_cancer()
    inputs = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return _split(inputs.astype(np.float32), data.target, 114, data.target)


def _spirals(arms=6, rows=1500):
    """Noisy spiral arms, one a class; a tenth of the labels is wrong.

    The plane is bent to a paraboloid, `[rows, 3]`: layer normalisation after the first
    layer would not see the length of a point of the plane.
    """
    generator = np.random.default_rng(11)
    labels = generator.integers(arms, size=rows)
    radius = np.sqrt(generator.uniform(0.02, 1, size=rows))
    angle = 2 * np.pi * labels / arms + 4 * radius + generator.normal(0, 0.12, rows)
    x, y = 2 * radius * np.cos(angle), 2 * radius * np.sin(angle)
    inputs = np.stack([x, y, x**2 + y**2 - 2], axis=1)
    wrong = generator.random(rows) < 0.1
    labels = np.where(wrong, generator.integers(arms, size=rows), labels)
    return _split(inputs.astype(np.float32), labels, 300, labels)


def _drawings(size, shape, rows, as_targets=False):
    images, labels = draw_figures(np.random.default_rng(size), rows, size)
    images = images.reshape(-1, *shape)
    return _split(images, images if as_targets else labels, rows // 6, labels)


# Signed distances to the outlines of figures of radius 1, below 0 inside.
_FIGURES = (
    lambda x, y: np.hypot(x, y) - 1,  # disc
    lambda x, y: np.abs(np.hypot(x, y) - 0.8) - 0.2,  # ring
    lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,  # square
    lambda x, y: np.abs(np.maximum(abs(x), abs(y)) - 0.7) - 0.15,  # frame
    lambda x, y: np.maximum(-y - 0.6, 0.87 * abs(x) + 0.5 * y - 0.6),  # triangle
    lambda x, y: np.maximum(  # upright cross
        np.minimum(abs(x), abs(y)) - 0.22, np.maximum(abs(x), abs(y)) - 1
    ),
    lambda x, y: np.maximum(  # diagonal cross
        np.minimum(abs(x + y), abs(x - y)) - 0.3, np.maximum(abs(x), abs(y)) - 0.9
    ),
    lambda x, y: np.maximum(abs(x) - 0.3, abs(y) - 1),  # upright bar
    lambda x, y: np.maximum(abs(y) - 0.3, abs(x) - 1),  # level bar
)
FIGURES = len(_FIGURES)


def draw_figures(generator, rows: int, size: int):
    """Figures of any position, size and brightness on a noisy sloping background.

    Returns:
        images `[rows, size, size]` float32, labels `[rows]` int32, one of `FIGURES`.
    """
    labels = generator.integers(FIGURES, size=rows)
    down, right = np.mgrid[:size, :size]
    images = np.empty((rows, size, size), np.float32)
    for image, label in zip(images, labels, strict=True):
        radius = size * generator.uniform(0.22, 0.4)
        x, y = (
            (axis - generator.uniform(radius, size - 1 - radius)) / radius
            for axis in (right, down)
        )
        inside = 1 / (1 + np.exp(2 * radius * _FIGURES[label](x, y)))
        slope = generator.normal(0, 0.3 / size, size=2)
        background = slope[0] * down + slope[1] * right
        image[...] = generator.uniform(0.5, 1.5) * inside + background
    images += generator.normal(0, 0.15, size=images.shape)
    return images, labels.astype(np.int32)


def _split(inputs, targets, test_rows, labels) -> SplitData:
    """Splits rows at random, each label in proportion."""
    from sklearn.model_selection import train_test_split

    training, test = train_test_split(
        np.arange(len(inputs)),
        test_size=test_rows,
        random_state=_SPLIT_SEED,
        stratify=labels,
    )
    if not np.issubdtype(np.asarray(targets).dtype, np.floating):
        targets = np.asarray(targets, np.int32)
    return SplitData(inputs[training], targets[training], inputs[test], targets[test])


def _sklearn_datasets():
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "held-out networks must have scikit-learn for their data: "
            "pip install 'hierarchical-rnn-optimizer[meta]'"
        ) from error
    return datasets


_LOADERS = {
    "digits": lambda: _digits((64,)),
    "digit_images": lambda: _digits((8, 8, 1)),
    "digit_rows": lambda: _digits((8, 8)),
    "digits_as_targets": lambda: _digits((64,), as_targets=True),
    "breast_cancer": _breast_cancer,
    "spirals": _spirals,
    "drawings": lambda: _drawings(16, (16, 16, 1), 1200),
    "flat_drawings": lambda: _drawings(20, (400,), 1200),
    "drawings_as_targets": lambda: _drawings(10, (100,), 1200, as_targets=True),
}
