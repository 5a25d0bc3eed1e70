"""Small files in the formats of ImageNet, for tests."""

import io
import tarfile

import keras
import numpy as np
from PIL import Image

from imagenet.input.imagenet2012 import TRAIN_TAR, VALIDATION_TAR
from imagenet.synthetic.drawing import draw

SYNSETS = ("n01440764", "n01443537", "n01484850")
# `{kind: how much it counts}` of `image_files`.
KINDS = {
    "plain": 1,
    "progressive": 1,
    "grey": 1,
    "cmyk": 1,
    "png": 1,
    "padded": 1,
    "long_tail": 1,
    "truncated": 0,
    "without_end": 0,
    "damaged_header": 0,
    "empty": 0,
    "text": 0,
}


def smooth_picture(height=70, width=110):
    """A picture that survives JPEG: uint8 `[height, width, 3]`."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [x, y, 0.5 + 0.4 * np.sin(6 * x) * np.cos(5 * y)]
    return (np.stack(channels, -1) * 255).astype(np.uint8)


def in_the_middle(picture, size):
    """The central crop by PIL: an independent computation, scaled to [-1, 1]."""
    height, width = picture.shape[:2]
    picture = np.broadcast_to(picture, (height, width, 3))
    side = round(0.875 * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    cropped = Image.fromarray(picture[top : top + side, left : left + side])
    resized = cropped.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32) / 127.5 - 1


def encoded(picture, image_format="JPEG", mode="RGB", **options) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture).convert(mode)
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def image_files(picture) -> dict[str, bytes]:
    """Files of each of `KINDS`, good ones and bad ones."""
    plain = encoded(picture, quality=95)
    frame = plain.index(b"\xff\xc0")
    return {
        "plain": plain,
        "progressive": encoded(picture, quality=95, progressive=True),
        "grey": encoded(picture, mode="L", quality=95),
        "cmyk": encoded(picture, mode="CMYK", quality=95),
        "png": encoded(picture, "PNG"),
        "padded": plain + bytes(100),
        "long_tail": plain + bytes(5000),
        "truncated": plain[: len(plain) // 2],
        "without_end": plain[:-2],
        # A frame of a kind that there is not.
        "damaged_header": plain[:frame] + b"\xff\xc3" + plain[frame + 2 :],
        "empty": b"",
        "text": b"not an image at all",
    }


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar file in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def train_tar(images_each=4, synsets=SYNSETS) -> bytes:
    """A training tar: a tar of each synset, with drawn images and one cut off."""
    inner = {}
    for label, synset in enumerate(synsets):
        files = {
            f"{synset}_{number}.JPEG": encoded(draw(label, number, 40))
            for number in range(images_each)
        }
        bad = files[f"{synset}_0.JPEG"]
        files[f"{synset}_cut.JPEG"] = bad[: len(bad) // 2]
        inner[f"{synset}.tar"] = tar_of(files)
    return tar_of(inner)


def validation_tar() -> bytes:
    """A validation tar: an image file of every kind, named in their order."""
    files = image_files(smooth_picture())
    return tar_of(
        {
            f"ILSVRC2012_val_{number:08d}.JPEG": files[kind]
            for number, kind in enumerate(KINDS, 1)
        }
    )


def put_tars(data_dir, train: bytes | None, validation: bytes | None) -> None:
    """Puts tar files where TFDS looks for them."""
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name, content in ((TRAIN_TAR, train), (VALIDATION_TAR, validation)):
        if content is not None:
            (manual / name).write_bytes(content)


def loss_of_first(model, images, count):
    """The loss of so many validation images, by Keras's own prediction and loss."""
    batch = next(images.evaluation_batches(count).as_numpy_iterator())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(batch[1], model.predict_on_batch(batch[0])))
