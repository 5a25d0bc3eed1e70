"""From the bytes of an image to the square that a model sees.

Training: a random part of the image, as Inception was trained (Szegedy et al. 2015,
section 6), perhaps mirrored, perhaps with its colours distorted (Howard 2013).
Evaluation: the middle. A JPEG is decoded only where it is cropped.
"""

import tensorflow as tf

# Of the shorter side in evaluation.
CENTRAL_FRACTION = 0.875
_ASPECT_RATIOS = (3 / 4, 4 / 3)
# Of random crops that do not fit, after which the whole image is taken.
_ATTEMPTS = 10
_END_OF_JPEG = (0xFF, 0xD9)
# How far before the end of a file its end mark may lie: some cameras pad.
_PADDING = 1024


def random_window(shape, seed, min_area: float):
    """A part of random aspect ratio and area, `min_area` of the image or more.

    The shape is height, width, channels, the seed int64 `[2]`. Returns int32 `[4]`:
    top, left, height, width.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=_ASPECT_RATIOS,
        area_range=(min_area, 1.0),
        max_attempts=_ATTEMPTS,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def central_window(shape):
    """The square in the middle, `CENTRAL_FRACTION` of the shorter side wide."""
    height, width = shape[0], shape[1]
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(1, tf.cast(tf.round(CENTRAL_FRACTION * shorter), tf.int32))
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def decode_window(content, window_of_shape):
    """Decodes a part of an image; fails where the file is not a whole one.

    A JPEG is decoded in the window alone; it must have its end mark near its end, for
    below the window a cut would go unseen. All else that TensorFlow knows, and a JPEG
    with a long tail, is decoded whole, which takes longer. `window_of_shape` goes from
    the image's shape to top, left, height, width. The part is uint8 `[height, width,
    3]`, whatever the colour space of the file.
    """

    def window_of_jpeg():
        window = window_of_shape(tf.io.extract_jpeg_shape(content))
        return tf.io.decode_and_crop_jpeg(content, window, channels=3)

    def window_of_whole():
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(window_of_shape(tf.shape(image)))
        return image[top : top + height, left : left + width]

    return tf.cond(
        tf.io.is_jpeg(content) & _ends(content), window_of_jpeg, window_of_whole
    )


def _ends(content):
    """Whether a JPEG has its end mark near its end."""
    length = tf.strings.length(content)
    tail = tf.strings.substr(content, tf.maximum(0, length - _PADDING), _PADDING)
    values = tf.io.decode_raw(tail, tf.uint8)
    first, second = _END_OF_JPEG
    return tf.reduce_any((values[:-1] == first) & (values[1:] == second))


def resize(image, size: int):
    """Float32 `[size, size, 3]`, 0 to 255, bilinear.

    An image that shrinks to half or less is smoothed, which takes three times as long;
    with less shrinking no pixel is passed over anyway.
    """
    image = tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) >= 2 * size,
        lambda: tf.image.resize(image, [size, size], antialias=True),
        lambda: tf.image.resize(image, [size, size]),
    )
    image.set_shape([size, size, 3])
    return image


def distort_colours(image, seed):
    """Random brightness, saturation, hue and contrast; 0 to 255, float32."""
    image = image / 255.0
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    image = tf.image.stateless_random_brightness(image, 32 / 255, seeds[0])
    image = tf.image.stateless_random_saturation(image, 0.5, 1.5, seeds[1])
    image = tf.image.stateless_random_hue(image, 0.2, seeds[2])
    image = tf.image.stateless_random_contrast(image, 0.5, 1.5, seeds[3])
    return tf.clip_by_value(image, 0.0, 1.0) * 255.0


def scale(image):
    """From 0..255 to [-1, 1], as Inception V3 and ResNet V2 of Keras take it."""
    return image / 127.5 - 1.0
