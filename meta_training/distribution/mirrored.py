"""Replicas on the devices of one machine: its GPUs, or logical CPUs."""

import tensorflow as tf

from learned_optimizer.utils.devices import local_devices
from meta_training.distribution.replicas import Replicas


class Mirrored(Replicas):
    """`tf.distribute.MirroredStrategy`: replicas in step on one machine."""

    name = "mirrored"

    def __init__(self, replicas: int | None = None):
        """Selects the devices.

        Args:
            replicas: How many of the GPUs, or logical CPUs where there is no GPU;
                None: all there are. Logical CPUs are made as needed, if TensorFlow
                has not been used yet.

        Raises:
            ValueError: There are fewer.
        """
        devices = local_devices(replicas)
        # Nothing is reduced on devices, see `Replicas`, so NCCL is never started.
        strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        super().__init__(strategy, len(devices))
