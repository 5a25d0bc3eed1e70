"""Data that no meta-training task has, split once and for all into two parts.

`training` is what an optimizer minimises, `test` what accuracy is measured on. The
splits and the random data have fixed seeds, so that every run, checkpoint and set of
weights is evaluated on the same numbers.
"""

import functools
import hashlib
import heapq
from typing import NamedTuple

import numpy as np

from learned_optimizer.utils.flags import require_member
from meta_training.tasks.released.datasets import sklearn_datasets

_SPLIT_SEED = 0


class SplitData(NamedTuple):
    """Rows to train on and rows to test on.

    Attributes:
        training_inputs: `[rows, ...]` float32, or bytes for pixels.
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


def training_rows(name: str) -> int:
    """How many rows a data set has to train on.

    MNIST is not read for it, so that its networks can be listed without it.
    """
    if name.startswith("mnist"):
        return 2000 if name.endswith("2000") else _MNIST_ROWS
    return len(load_data(name).training_inputs)


def _digits(shape, as_targets=False):
    """scikit-learn's 1,797 digits of 8 x 8 pixels in [0, 1]; 360 of them to test."""
    data = sklearn_datasets().load_digits()
    images = (data.images / 16.0).reshape(-1, *shape).astype(np.float32)
    return _split(images, images if as_targets else data.target, 360, data.target)


def _breast_cancer():
    """569 rows of 30 features of very different sizes, standardised; two classes."""
    data = sklearn_datasets().load_breast_cancer()
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


VAE_LATENT = 8
# Rows of MNIST, which is read only when it is needed, and of it to test on.
_MNIST_ROWS, _MNIST_TEST_ROWS = 60_000, 2_000


@functools.cache
def _read_mnist():
    """Images `[rows, 28, 28, 1]` as bytes and labels, to train and to test."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "the final networks must have tensorflow-datasets for MNIST: "
            "pip install 'hierarchical-rnn-optimizer[imagenet]'"
        ) from error
    builder = tfds.builder("mnist")
    try:
        found = builder.as_dataset(batch_size=-1)
    except AssertionError as error:
        raise ValueError(
            "MNIST must lie where TensorFlow Datasets keeps its data, which "
            "TFDS_DATA_DIR names and `tensorflow_datasets.load('mnist')` downloads it "
            f"to. Received: {builder.data_path!s}, which is not there"
        ) from error
    return [
        (found[part]["image"].numpy(), found[part]["label"].numpy().astype(np.int32))
        for part in ("train", "test")
    ]


def _mnist(shape, rows=_MNIST_ROWS, noise=0):
    """MNIST as bytes; `noise` of each row in the place of its label, if any."""
    parts = []
    for images, labels in _read_mnist():
        count = min(rows, len(images)) if not parts else _MNIST_TEST_ROWS
        targets = labels[:count]
        if noise:
            generator = np.random.default_rng(len(parts))
            targets = generator.standard_normal((count, noise), dtype=np.float32)
        parts += [images[:count].reshape(-1, *shape), targets]
    return SplitData(*parts)


# Characters that a text is read by, and how many different ones there are.
TEXT_WINDOW, TEXT_CHARACTERS = 20, 72
_TEXT_SHA256 = "ab8a707f953445e27e50412216381eb9444b0f5e5396f154a5223e3962b2986c"


def _text():
    """Windows of François Pinard's text on heaps, and the character after each.

    It is `heapq.__about__`: 4,718 characters of English, the same in Python 3.11, 3.12
    and 3.13. The last tenth is to test; windows that would lie in both parts are left
    out. Characters are one-hot.
    """
    text = heapq.__about__
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if sha256 != _TEXT_SHA256:
        raise ValueError(
            "heapq.__about__ must be the text that the final networks were made with, "
            f"of sha256 {_TEXT_SHA256}. Received: {sha256}; use another Python"
        )
    known = {character: code for code, character in enumerate(sorted(set(text)))}
    codes = np.array([known[character] for character in text])
    windows = np.lib.stride_tricks.sliding_window_view(codes, TEXT_WINDOW + 1)
    training = len(windows) * 9 // 10
    one_hot = np.eye(len(known), dtype=np.float32)
    parts = []
    for part in (windows[:training], windows[training + TEXT_WINDOW :]):
        parts += [one_hot[part[:, :-1]], part[:, -1].astype(np.int32)]
    return SplitData(*parts)


def _diabetes():
    """442 patients, ten features; the standardised target has noise of Student's t.

    With two degrees of freedom its variance is infinite.
    """
    data = sklearn_datasets().load_diabetes(scaled=False)
    inputs = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    target = (data.target - data.target.mean()) / data.target.std()
    noise = np.random.default_rng(3).standard_t(2, target.shape)
    targets = (target + 0.5 * noise)[:, None].astype(np.float32)
    return _split(inputs.astype(np.float32), targets, 88, None)


def _split(inputs, targets, test_rows, labels) -> SplitData:
    """Splits rows at random, each label in proportion if there are any."""
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
    "mnist": lambda: _mnist((784,)),
    "mnist_images": lambda: _mnist((28, 28, 1)),
    "mnist_images_2000": lambda: _mnist((28, 28, 1), 2000),
    "mnist_rows": lambda: _mnist((28, 28)),
    "mnist_and_noise": lambda: _mnist((784,), noise=VAE_LATENT),
    "text": _text,
    "diabetes": _diabetes,
}
