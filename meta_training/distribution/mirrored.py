"""Replicas on the devices of one machine: its GPUs, or logical CPUs."""

import tensorflow as tf

from meta_training.distribution.replicas import Replicas


class Mirrored(Replicas):
    """`tf.distribute.MirroredStrategy`: replicas in step on one machine."""

    name = "mirrored"

    def __init__(self, replicas: int | None = None):
        """Takes the devices.

        Args:
            replicas: How many of the GPUs, or logical CPUs where there is no GPU;
                None: all there are. Logical CPUs are made as needed, if TensorFlow
                has not been used yet.

        Raises:
            ValueError: there are fewer.
        """
        devices = local_devices(replicas)
        # Nothing is reduced on devices, see `Replicas`, so NCCL is never started.
        strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        super().__init__(strategy, len(devices))


def local_devices(replicas: int | None) -> list[str]:
    """The GPUs of this machine, or logical CPUs, made as needed where it has none.

    Args:
        replicas: How many; None: all there are.

    Raises:
        ValueError: there are fewer.
    """
    if replicas is not None and replicas < 1:
        raise ValueError(f"`replicas` must be 1 or more, received {replicas}")
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and replicas is not None:
        _make_logical_cpus(replicas)
    there = len(tf.config.list_logical_devices(kind))
    replicas = there if replicas is None else replicas
    if replicas > there:
        raise ValueError(
            f"`replicas` of strategy mirrored must be at most the number of {kind}s, "
            f"received {replicas}, found {there}"
        )
    return [f"{kind}:{number}" for number in range(replicas)]


def _make_logical_cpus(count):
    (cpu,) = tf.config.list_physical_devices("CPU")
    if tf.config.get_logical_device_configuration(cpu):
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        # TensorFlow has started with the one CPU it found.
        return
