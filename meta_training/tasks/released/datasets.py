"""The random data sets of the released code, seed for seed (datasets.py).

Every function takes `random_state`: an integer seed or a `numpy.random.RandomState`,
the legacy generator, whose streams NumPy keeps fixed. With the released seed it
returns the released arrays.
"""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Rows of data, float32 `[rows, ...]`, and their labels, int32 `[rows, ...]`."""

    data: np.ndarray
    labels: np.ndarray


def legacy_random_state(
    generator: np.random.Generator, seed: int | None = None
) -> np.random.RandomState:
    """A `RandomState` of that seed; None: of one draw of `generator`."""
    seed = generator.integers(2**32 - 1) if seed is None else seed
    return np.random.RandomState(seed)


def _as_random_state(random_state) -> np.random.RandomState:
    if isinstance(random_state, np.random.RandomState):
        return random_state
    return np.random.RandomState(random_state)


def _dataset(data, labels) -> Dataset:
    return Dataset(data.astype(np.float32), labels.astype(np.int32))


def sklearn_datasets():
    """The module `sklearn.datasets`, imported where it is needed.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "softmax regression tasks and held-out networks must have scikit-learn for "
            "their data: pip install 'hierarchical-rnn-optimizer[meta]'"
        ) from error
    return datasets


def noisy_parity(
    rows, random_state, classes=2, context=5, noise_probability=0.25
) -> Dataset:
    """Labels that are the sum of `context` class numbers, modulo `classes`.

    With `noise_probability` a label is one too high.
    """
    random_state = _as_random_state(random_state)
    data = random_state.randint(0, classes, [rows, context])
    noise = random_state.binomial(1, noise_probability, [rows])
    return _dataset(data, (data.sum(axis=1) + noise) % classes)


def random_classification(
    features, rows, random_state, classes=2, separation=1.0
) -> Dataset:
    """`sklearn.datasets.make_classification`, all features informative (`random`)."""
    data, labels = sklearn_datasets().make_classification(
        n_samples=rows,
        n_features=features,
        n_informative=features,
        n_redundant=0,
        n_classes=classes,
        class_sep=separation,
        random_state=_as_random_state(random_state),
    )
    return _dataset(data, labels)


def random_binary(features, rows, random_state) -> Dataset:
    """Zeros and ones, with labels of zero `[rows, 1]`."""
    data = _as_random_state(random_state).randint(2, size=(rows, features))
    return _dataset(data, np.zeros((rows, 1)))


def random_symmetric(features, rows, random_state) -> Dataset:
    """N(0, 1) rows followed by their negatives; `rows` is rounded down to even.

    As released, the labels keep the odd row that the data lose.
    """
    half = _as_random_state(random_state).normal(size=(rows // 2, features))
    return _dataset(np.concatenate([half, -half]), np.zeros((rows, 1)))


def random_mlp(features, rows, random_state, layers=6, width=20) -> Dataset:
    """N(0, 1) rows, labelled by whether a random ReLU network's first unit is on.

    Some seeds give nearly all rows one label, as released. The released weights are
    scaled too, which changes no label: the sign of a ReLU network without biases
    does not depend on the size of its weights.
    """
    random_state = _as_random_state(random_state)
    data = random_state.normal(size=(rows, features))
    hidden = data
    for _ in range(layers):
        weights = random_state.normal(size=(hidden.shape[1], width))
        hidden = np.maximum(hidden @ weights, 0)
    return _dataset(data, hidden[:, 0] > 0)
