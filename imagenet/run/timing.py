"""Where the time of a training step goes: input, forward and backward, optimizer.

Each part is run by itself, compiled as in training, on batches that are there already
(but for the input). What the optimizer takes does not depend on the batch, so its share
of a step falls as the batch grows.
"""

import time
from collections.abc import Iterable

import tensorflow as tf

from imagenet.input.data import ImageData
from imagenet.models import build_model
from imagenet.optimizers import OptimizerSpec
from imagenet.run.checkpoints import size_of
from imagenet.run.config import RunConfig
from imagenet.run.devices import Devices
from imagenet.run.programs import Programs
from learned_optimizer.utils.measuring import median_seconds

# Of which the median is taken.
_REPETITIONS = 5


def time_steps(
    config: RunConfig,
    spec: OptimizerSpec,
    images: ImageData,
    batch_sizes: Iterable[int],
) -> list[dict[str, float]]:
    """Times the parts of a step on one device, a row of `timing.csv` a batch size."""
    devices = Devices(tf.distribute.get_strategy(), 1)
    model = build_model(
        config.model,
        images.num_classes,
        config.image_size,
        config.precision,
        seed=config.seed,
    )
    optimizer = spec.make(model)
    programs = Programs(config, spec, devices, model, optimizer)
    parameters = sum(v.shape.num_elements() for v in model.trainable_variables)
    gradients_of = tf.function(programs.gradients)
    apply = tf.function(programs.apply)
    rows, of_optimizer = [], None
    for batch_size in batch_sizes:
        batch = next(iter(images.training_batches(batch_size)))
        arguments = (*batch, tf.reduce_sum(batch[2]))
        gradients, _ = gradients_of(*arguments)
        of_gradients = _median(gradients_of, *arguments)
        of_optimizer = of_optimizer or _median(apply, gradients)
        rows.append(
            {
                "batch_size": batch_size,
                "input_seconds": _input_seconds(images, batch_size),
                "gradient_seconds": of_gradients,
                "optimizer_seconds": of_optimizer,
                "optimizer_share": of_optimizer / (of_optimizer + of_gradients),
                "state_bytes_per_parameter": size_of(optimizer) / parameters,
            }
        )
    return rows


def _median(function, *arguments):
    def to_the_end():
        function(*arguments)
        # On a GPU the call returns before the work is done.
        tf.test.experimental.sync_devices()

    return median_seconds(to_the_end, _REPETITIONS)


def _input_seconds(images, batch_size):
    """Seconds a batch at full speed, once what was read ahead is used up."""
    batches = iter(images.training_batches(batch_size))
    for _ in range(max(4, 256 // batch_size)):
        next(batches)
    count = max(_REPETITIONS, 256 // batch_size)
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - began) / count
