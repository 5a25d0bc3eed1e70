"""The data of small networks: they can be learned, and are as they say."""

import numpy as np
import pytest

from meta_training.tasks.small_networks import random_data

# The shape of an example, and the mean size of its numbers.
LABELLED = {
    "gaussian_mixture": ((6,), 0.635311),
    "teacher_labels": ((6,), 0.561247),
    "pattern_images": ((8, 8, 2), 0.589010),
    "grating_images": ((8, 8, 2), 0.963729),
    "wave_sequences": ((7, 3), 1.21207),
    "marked_tokens": ((5, 4), 1.11183),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_data_can_be_learned_and_stay_what_weights_were_trained_on(name):
    """Every class occurs, and nearest neighbours do better than chance by far."""
    shape, size = LABELLED[name]
    draw = getattr(random_data, name)
    arguments = (shape,) if "images" in name else shape
    scores = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        data, labels = draw(generator, 600, *arguments, 4)
        assert data.shape == (600, *shape)
        if seed == 0:
            assert np.abs(data).mean() == pytest.approx(size, rel=1e-4)
        assert np.isfinite(data).all()
        assert (np.bincount(labels, minlength=4) > 5).all()
        flat = data.reshape(600, -1)
        distances = ((flat[:200, None] - flat[None, 200:]) ** 2).sum(axis=-1)
        guesses = labels[200:][distances.argmin(axis=1)]
        scores.append((guesses == labels[:200]).mean())
    assert np.mean(scores) > 0.35


def test_label_noise_changes_the_given_fraction():
    generator = np.random.default_rng(0)
    labels = generator.integers(5, size=20_000)
    noisy = random_data.with_label_noise(generator, labels, 5, 0.25)
    # A label drawn anew is the old one in one case of five.
    assert (noisy != labels).mean() == pytest.approx(0.25 * 0.8, abs=0.02)


def test_teacher_outputs_are_standardised():
    data, targets = random_data.teacher_outputs(np.random.default_rng(0), 500, 6, 3)
    assert (data.shape, targets.shape) == ((500, 6), (500, 3))
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.std(axis=0), 1, atol=1e-3)
