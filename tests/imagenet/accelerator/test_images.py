"""Images on the device: whose turn it is, and what is done to them."""

import numpy as np
import pytest

from imagenet.synthetic.drawing import draw

pytest.importorskip("jax", reason="JAX is not installed: `make backends`")


@pytest.fixture(scope="module")
def images():
    from imagenet.accelerator.images import DeviceImages

    return DeviceImages.drawn(3, 12, 32, 4, seed=5)


def test_they_are_the_drawn_ones(images):
    assert images.images.shape == (12, 32, 32, 3) and images.images.dtype == "uint8"
    assert images.labels.tolist() == [3, 0, 1, 2] * 3
    for place, image in enumerate(np.asarray(images.images)):
        drawn = draw((3 + place) % 4, 3 + place, 32, seed=5)
        # JPEG loses a little.
        assert np.abs(image.astype(float) - drawn).mean() < 18


def test_they_come_once_an_epoch(images):
    orders = np.array([images.rows(step, 8, seed=0) for step in range(6)])
    epochs = orders.reshape(4, 12)
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert not np.array_equal(orders[0], images.rows(0, 8, seed=1))


def test_a_batch_is_shifted_and_mirrored_parts():
    import jax

    from imagenet.accelerator.images import augmented

    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    rows = np.tile([0, 1], 40)
    batch = np.asarray(augmented(image, rows, jax.random.key(0)))
    assert batch.shape == (80, 16, 16, 3)
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    padded = padded / 127.5 - 1.0
    seen = set()
    for row, found in zip(rows, batch, strict=True):
        (case,) = [
            (down, right, flip)
            for down in range(5)
            for right in range(5)
            for flip in (False, True)
            if np.allclose(
                found[:, :: -1 if flip else 1],
                padded[row, down : down + 16, right : right + 16],
                atol=1e-5,
            )
        ]
        seen.add(case)
    assert len(seen) > 30
