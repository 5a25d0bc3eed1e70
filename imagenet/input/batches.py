"""The batches of a run, brought to its devices.

Every worker reads its own shard of the images. A process that reads several shards
(`input_shards` of one that is alone) concatenates their batches, so it sees
what that many workers see together.
"""

import math

import tensorflow as tf

from imagenet.input.data import ImageData
from imagenet.run.config import RunConfig
from imagenet.run.devices import Devices


def training_iterator(
    config: RunConfig, devices: Devices, images: ImageData, first_step: int
):
    """An iterator over what each replica takes for each part of each step.

    Raises:
        ValueError: The shards do not fit the workers or the batch.
    """
    parts = config.accumulation_steps
    size = devices.per_replica(config.batch_size, parts)
    shards = shards_of(config, devices)
    if devices.asynchronous:
        return _asynchronous_iterator(config, devices, images)

    def dataset(context):
        mine = shards // context.num_input_pipelines
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        whole = size * parts * replicas // mine
        first = context.input_pipeline_id * mine
        read = [
            images.training_batches(
                whole, first_step=first_step, shard=first + shard, num_shards=shards
            )
            for shard in range(mine)
        ]
        if mine == 1 and whole == size:
            return read[0].prefetch(2)
        together = read[0] if mine == 1 else _concatenate_shards(read)
        # The first replica takes the first part of the batch, and so on.
        return together.unbatch().batch(size, drop_remainder=True).prefetch(2)

    return iter(devices.strategy.distribute_datasets_from_function(dataset))


def shards_of(config: RunConfig, devices: Devices) -> int:
    """Parts in which the training images are read.

    Raises:
        ValueError: The shards do not fit the workers or the batch.
    """
    shards = config.input_shards or devices.num_workers
    here = config.batch_size // devices.num_workers
    if shards % devices.num_workers or here % (shards // devices.num_workers):
        raise ValueError(
            "input_shards must be a multiple of the number of workers, and the batch "
            f"must divide by it. Received: input_shards={shards}, "
            f"{devices.num_workers} workers, batch_size={config.batch_size}"
        )
    return shards


def _concatenate_shards(datasets):
    def concatenated(*batches):
        return tuple(tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))

    return tf.data.Dataset.zip(*datasets).map(concatenated)


def asynchronous_batches(
    config: RunConfig, num_workers: int, images: ImageData
) -> tf.data.Dataset:
    """Batches of which every iterator has its own.

    The same program makes the input of every worker and cannot know which one it is
    on, nor that one came back. So each iterator draws a number, from which the order
    of its images and their crops follow, and passes over shards, more than there are
    workers, in an order that it draws, too.
    """
    shards = 4 * num_workers
    steps = max(1, images.num_train_images // shards // config.batch_size)

    def of_iterator(extra_seed):
        read = [
            images.training_batches(
                config.batch_size,
                shard=shard,
                num_shards=shards,
                num_pipelines=shards,
                extra_seed=extra_seed,
            )
            for shard in range(shards)
        ]
        order = tf.data.Dataset.random(rerandomize_each_iteration=True).flat_map(
            lambda number: tf.data.Dataset.from_tensors(number % shards).repeat(steps)
        )
        return tf.data.Dataset.choose_from_datasets(read, order)

    extra_seed = tf.data.Dataset.random(rerandomize_each_iteration=True).take(1)
    return extra_seed.flat_map(of_iterator).prefetch(2)


def _asynchronous_iterator(config, devices, images):
    def dataset(context):
        del context
        return asynchronous_batches(config, devices.num_workers, images)

    # With a global seed all workers would draw the same.
    tf.random.set_seed(None)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(devices.strategy)
    return iter(
        coordinator.create_per_worker_dataset(
            lambda: devices.strategy.distribute_datasets_from_function(dataset)
        )
    )


def evaluation_iterator(config: RunConfig, devices: Devices, images: ImageData):
    """An iterator over the validation images, once, and the steps that it takes.

    In steps and replicas that are left over all weights are 0.
    """
    replicas = 1 if devices.asynchronous else devices.num_replicas
    workers = 1 if devices.asynchronous else devices.num_workers
    # As many at a time as in training, which have room on the device.
    at_once = config.batch_size // config.accumulation_steps
    size = max(1, (config.eval_batch_size or at_once) // replicas)
    count = images.num_validation_images
    count = min(count, config.eval_images or count)
    # Shards differ by an image, so the largest decides.
    steps = math.ceil(math.ceil(count / workers) / (size * (replicas // workers)))

    def dataset(context):
        here = context.num_replicas_in_sync // context.num_input_pipelines
        shards = context.num_input_pipelines
        batches = images.evaluation_batches(
            size, shard=context.input_pipeline_id, num_shards=shards
        )
        zeros = (tf.zeros([size, *s.shape[1:]], s.dtype) for s in batches.element_spec)
        nothing = tf.data.Dataset.from_tensors(tuple(zeros)).repeat()
        # `take` before the images are read that nobody asks for.
        return batches.concatenate(nothing).take(steps * here).prefetch(2)

    if devices.asynchronous:
        return iter(dataset(tf.distribute.InputContext())), steps
    return iter(devices.strategy.distribute_datasets_from_function(dataset)), steps
