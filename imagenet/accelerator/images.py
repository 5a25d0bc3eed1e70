"""Drawn images that lie on the device, where batches are gathered and shifted."""

import concurrent.futures
import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from imagenet.synthetic.jpegs import drawn_jpegs


class DeviceImages:
    """Images on the device, uint8 `[images, size, size, 3]`, and their int32 labels."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = jax.device_put((images, labels))

    def __len__(self):
        return len(self.labels)

    @classmethod
    def drawn(
        cls, first: int, count: int, size: int, num_classes: int, seed: int
    ) -> "DeviceImages":
        """The drawn images from number `first` on, see `drawn_jpegs`."""
        indices = range(first, first + count)
        files = drawn_jpegs(indices, num_classes, seed, size=size)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            images = np.stack(list(pool.map(_decoded, files)))
        return cls(images, (np.array(indices) % num_classes).astype("i4"))

    def rows(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """Which images are in the batch of a step; each epoch has its own order."""
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        first, last = places[[0, -1]] // len(self)
        orders = [
            np.random.default_rng([seed, epoch]).permutation(len(self))
            for epoch in range(first, last + 1)
        ]
        return np.concatenate(orders)[places - first * len(self)]


def _decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def augmented(images, rows, key):
    """A batch, each image mirrored or not and shifted by up to an eighth of its side.

    The `rows` of uint8 `[images, size, size, 3]` become float32 from -1 to 1.
    """
    size, reach = images.shape[1], images.shape[1] // 8
    of_shift, of_flip = jax.random.split(key)
    shifts = jax.random.randint(of_shift, (2, len(rows), 1), -reach, reach + 1)
    # What lies beyond the edge repeats it.
    down, right = jnp.clip(jnp.arange(size) + shifts, 0, size - 1)
    flipped = jax.random.bernoulli(of_flip, shape=(len(rows), 1))
    right = jnp.where(flipped, right[:, ::-1], right)
    return scaled(images[rows[:, None, None], down[:, :, None], right[:, None, :]])


def scaled(images):
    """Pixels from 0 to 255 as the networks take them, from -1 to 1."""
    return images.astype(jnp.float32) / 127.5 - 1.0
