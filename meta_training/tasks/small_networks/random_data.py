"""Random data for the small networks of the `default` set.

Everything is drawn anew for each instance: no data set that validation or testing
uses is among them. Inputs differ in scale, sign and spread from instance to
instance, since a learned optimizer should not count on standardised ones.

Data of classifiers come as `[rows, ...]` float32, in the shape that the arguments say,
and labels, `[rows]` int32.
"""

import numpy as np


def with_label_noise(generator, labels, classes, fraction) -> np.ndarray:
    """`labels` with the given fraction of them drawn anew from all classes."""
    is_noisy = generator.random(labels.shape) < fraction
    random_labels = generator.integers(classes, size=labels.shape)
    return np.where(is_noisy, random_labels, labels).astype(np.int32)


def vary_inputs(generator, data) -> np.ndarray:
    """Standardises the columns and gives them a scale, and some data a sign.

    A third of the data sets are squashed into [0, 1], as pixels are. The scale is
    log-normal with a spread of 0.5.
    """
    data = _standardise(data)
    if generator.random() < 1 / 3:
        data = 1 / (1 + np.exp(-2 * data))
    return (data * np.exp(generator.normal(0, 0.5))).astype(np.float32)


def gaussian_mixture(generator, rows, features, classes):
    """One to three Gaussian clusters a class, each with a separate covariance."""
    clusters = int(generator.integers(1, 4))
    separation = generator.uniform(0.7, 2.0)
    shape = (classes, clusters, features)
    centres = separation * generator.normal(size=shape)
    spreads = generator.normal(size=(*shape, features)) / np.sqrt(features)
    labels = generator.integers(classes, size=rows)
    members = generator.integers(clusters, size=rows)
    noise = generator.normal(size=(rows, features))
    data = centres[labels, members]
    data = data + np.einsum("rfg,rg->rf", spreads[labels, members], noise)
    return vary_inputs(generator, data), labels.astype(np.int32)


def teacher_outputs(generator, rows, features, outputs, width=16):
    """N(0, 1) inputs, and standardised `[rows, outputs]` of a random tanh network."""
    data = generator.normal(size=(rows, features))
    hidden = np.tanh(data @ generator.normal(size=(features, width)) / features**0.5)
    kernel = 2 * generator.normal(size=(width, width)) / width**0.5
    hidden = np.tanh(hidden @ kernel)
    targets = _standardise(hidden @ generator.normal(size=(width, outputs)))
    return vary_inputs(generator, data), targets.astype(np.float32)


def teacher_labels(generator, rows, features, classes):
    """Rows labelled by the largest standardised output of a random network."""
    data, outputs = teacher_outputs(generator, rows, features, classes)
    return data, outputs.argmax(axis=1).astype(np.int32)


def curved_manifold(generator, rows, features):
    """`[rows, features]` points of a random curved surface of low dimension, noisy."""
    latent = generator.normal(size=(rows, 3))
    waves = np.sin(latent @ generator.normal(size=(3, features)))
    mixed = waves @ generator.normal(size=(features, features)) / features**0.5
    noise = generator.uniform(0, 0.2) * generator.normal(size=mixed.shape)
    return vary_inputs(generator, _standardise(mixed) + noise)


def pattern_images(generator, rows, image_shape, classes):
    """A smooth random pattern a class, shifted a little and covered with noise.

    `image_shape` is height, width, channels.
    """
    patterns = _smooth(generator.normal(size=(classes, *image_shape)))
    labels = generator.integers(classes, size=rows)
    shifts = generator.integers(-1, 2, size=(rows, 2))
    images = np.stack(
        [
            np.roll(patterns[label], shift, axis=(0, 1))
            for label, shift in zip(labels, shifts, strict=True)
        ]
    )
    images += generator.uniform(0.2, 1.0) * generator.normal(size=images.shape)
    return _vary_images(generator, images), labels.astype(np.int32)


def grating_images(generator, rows, image_shape, classes):
    """Waves whose direction and frequency depend on the class, of any phase."""
    height, width, channels = image_shape
    frequencies = generator.uniform(0.5, 2.0, size=classes)
    directions = generator.uniform(0, np.pi, size=classes)
    labels = generator.integers(classes, size=rows)
    phases = generator.uniform(0, 2 * np.pi, size=(rows, 1, 1, channels))
    y, x = np.mgrid[:height, :width]
    along = (
        np.cos(directions)[:, None, None] * x + np.sin(directions)[:, None, None] * y
    )
    angles = frequencies[:, None, None] * along
    images = np.sin(angles[labels][..., None] + phases)
    images += generator.uniform(0.2, 0.8) * generator.normal(size=images.shape)
    return _vary_images(generator, images), labels.astype(np.int32)


def wave_sequences(generator, rows, steps, features, classes):
    """Sequences of mixed waves whose frequencies depend on the class."""
    frequencies = generator.uniform(0.2, 2.0, size=(classes, 2))
    labels = generator.integers(classes, size=rows)
    phases = generator.uniform(0, 2 * np.pi, size=(rows, 1, 2))
    time = np.arange(steps)[None, :, None]
    waves = np.sin(frequencies[labels][:, None, :] * time + phases)
    data = waves @ generator.normal(size=(2, features))
    data += generator.uniform(0.1, 0.4) * generator.normal(size=data.shape)
    return vary_inputs(generator, data), labels.astype(np.int32)


def marked_tokens(generator, rows, tokens, features, classes):
    """Sets of tokens, one of them marked: the label is the marked token's class.

    Each token is a noisy prototype of its class; one more direction is added to
    the marked one. To classify, a network must look at one token of many.
    """
    prototypes = generator.normal(size=(classes, features))
    kinds = generator.integers(classes, size=(rows, tokens))
    marked = generator.integers(tokens, size=rows)
    data = prototypes[kinds] + 0.3 * generator.normal(size=(rows, tokens, features))
    data[np.arange(rows), marked] += 2 * generator.normal(size=features)
    labels = kinds[np.arange(rows), marked]
    return vary_inputs(generator, data), labels.astype(np.int32)


def word_bags(generator, rows, words, vocabulary, classes):
    """Words by Zipf's law; the label is the class that the words of a row speak for.

    The data are the numbers of the words, `[rows, words]` int32.
    """
    chances = 1 / np.arange(1.0, vocabulary + 1)
    data = generator.choice(vocabulary, (rows, words), p=chances / chances.sum())
    meaning = generator.normal(size=(vocabulary, classes))
    # Common words say little, or they alone would decide.
    meaning *= np.minimum(1, np.arange(1, vocabulary + 1) / 20)[:, None]
    labels = meaning[data].sum(axis=1).argmax(axis=1)
    return data.astype(np.int32), labels.astype(np.int32)


def _standardise(data):
    axes = tuple(range(data.ndim - 1))
    return (data - data.mean(axis=axes)) / (data.std(axis=axes) + 1e-6)


def _smooth(images):
    """Averages each pixel of `[count, height, width, channels]` with its neighbours."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return sum(np.roll(images, shift, axis=(1, 2)) for shift in shifts) / 3


def _vary_images(generator, images):
    scale = np.exp(generator.normal(0, 0.5))
    if generator.random() < 0.5:
        low, high = images.min(), images.max()
        images = (images - low) / (high - low)
    return (scale * images).astype(np.float32)


# What a classifier's `source` can name, by the kind of its data.
VECTOR_SOURCES = {"mixture": gaussian_mixture, "teacher": teacher_labels}
IMAGE_SOURCES = {"patterns": pattern_images, "gratings": grating_images}
