"""ImageNet as batches: the same ones in every run, from any step on.

data = open_images(DataConfig("generated", "data", image_size=64))
for images, labels, weights in data.training_batches(32): ...
"""

import tensorflow as tf
import tensorflow_datasets as tfds

from imagenet.input import augmentation
from imagenet.input.config import DataConfig
from imagenet.input.record_order import (
    part_of_split,
    records_in_order,
    shuffled_records,
)
from imagenet.input.sources import ImageSource, open_source


def open_images(config: DataConfig) -> "ImageData":
    """The images that the settings name.

    Their records are written when they are not there yet: generated ones are
    drawn, ImageNet comes from its tar files, other sets as TFDS gets them, and a
    folder of images is copied. Errors are those of `open_source`.
    """
    return ImageData(config, open_source(config))


class ImageData:
    """Batches of images, see `open_images`.

    A batch is `(images, labels, weights)`: float32 `[batch, size, size, 3]`, int32
    `[batch]`, float32 `[batch]`. The weight is 1, or 0 for what does not count: an
    image that cannot be decoded, or what fills up the last batch of an evaluation.
    """

    def __init__(self, config: DataConfig, source: ImageSource):
        self.config = config
        self.num_classes = source.num_classes
        splits = source.builder.info.splits
        self.num_train_images = splits[source.train_split].num_examples
        self.num_validation_images = splits[source.validation_split].num_examples
        self._source = source
        features = source.builder.info.features
        names = ("image", "label", "file_name")
        # Of all others nothing is decoded.
        self._features = tfds.decode.PartialDecoding(
            {name: True for name in names if name in features}
        ).extract_features(features)

    def training_batches(
        self,
        batch_size: int,
        *,
        first_step=0,
        shard=0,
        num_shards=1,
        num_pipelines=1,
        extra_seed=0,
    ) -> tf.data.Dataset:
        """Batches without end, those from `first_step` on.

        What is in the batch of a step follows from the settings, `batch_size`, the
        shard and the step alone. Epochs follow each other without a gap: a batch may
        hold the end of one and the start of the next.

        Of the batches that are left out nothing is decoded; each shard is read by
        another worker. For `num_pipelines` and `extra_seed` see `shuffled_records`.

        Raises:
            ValueError: There are more shards than images.
        """
        if num_shards > self.num_train_images:
            raise ValueError(
                f"There must be no more shards than the {self.num_train_images} "
                f"training images. Received: num_shards={num_shards}"
            )
        part = part_of_split(
            self._source.builder, self._source.train_split, shard, num_shards
        )
        first = first_step * batch_size
        records = shuffled_records(
            part, self.config.seed, first, num_pipelines, extra_seed
        )
        # All shards draw from one sequence of seeds, each its own.
        images = records.enumerate(first).map(
            lambda number, record: self._training_image(
                record, tf.cast(number, tf.int64) * num_shards + shard, extra_seed
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return _batched(images, batch_size)

    def evaluation_batches(
        self, batch_size: int, *, shard=0, num_shards=1
    ) -> tf.data.Dataset:
        """The validation images once, in a fixed order, in whole batches.

        All shards have the same number of batches; what is missing in the last ones is
        made up by images of weight 0.
        """
        part = part_of_split(
            self._source.builder, self._source.validation_split, shard, num_shards
        )
        images = records_in_order(part).map(
            lambda record: self._image(record, augmentation.central_window),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        largest_shard = -(-self.num_validation_images // num_shards)
        batches = -(-largest_shard // batch_size)
        filling = tf.data.Dataset.from_tensors(self._neutral())
        filling = filling.repeat(batches * batch_size - part.count)
        batched = _batched(images.concatenate(filling), batch_size)
        return batched.apply(tf.data.experimental.assert_cardinality(batches))

    def _training_image(self, record, number, extra_seed=0):
        seed = tf.stack([tf.cast(self.config.seed + extra_seed, tf.int64), number])
        crop, flip, colour = tf.unstack(tf.random.experimental.stateless_split(seed, 3))

        def window(shape):
            return augmentation.random_window(shape, crop, self.config.min_crop_area)

        def finish(image):
            if self.config.horizontal_flip:
                image = tf.image.stateless_random_flip_left_right(image, flip)
            if self.config.colour_distortion:
                image = augmentation.distort_colours(image, colour)
            return image

        return self._image(record, window, finish)

    def _image(self, record, window, finish=lambda image: image):
        """Image, label and weight of a record."""
        example = self._features.deserialize_example(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )
        label = tf.cast(example["label"], tf.int32)
        # Most sets have file names; a record of others is told by its content.
        number = tf.strings.to_hash_bucket_fast(record, 2**32)
        name = example.get(
            "file_name", tf.strings.format("record {} of class {}", (number, label))
        )

        def decoded(content, _):
            image = augmentation.decode_window(content, window)
            image = finish(augmentation.resize(image, self.config.image_size))
            return augmentation.scale(image), tf.constant(1.0)

        def skipped(_, file_name):
            print_name = tf.print("Skipped", file_name, "which cannot be decoded")
            with tf.control_dependencies([print_name]):
                image, _, weight = self._neutral()
                return tf.identity(image), weight

        image, weight = _value_or((example["image"], name), decoded, skipped)
        return image, label, weight

    def _neutral(self):
        """An image of one grey, with label and weight 0."""
        size = self.config.image_size
        return tf.zeros([size, size, 3]), tf.constant(0), tf.constant(0.0)


def _value_or(arguments, function, otherwise):
    """What `function` returns for a tuple of tensors, or `otherwise` if it fails.

    A graph has no exceptions to catch, but a `tf.data` dataset can leave out an element
    whose function failed. So what may fail is a dataset of one element, followed by
    what to take instead; the first one that there is, is taken: 0.2 ms an image.
    """
    one = tf.data.Dataset.from_tensors(arguments)
    attempt = one.map(function).ignore_errors()
    return attempt.concatenate(one.map(otherwise)).take(1).get_single_element()


def _batched(images, batch_size):
    options = tf.data.Options()
    options.deterministic = True
    batches = images.batch(batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
