"""The devices of this machine, by name."""

import tensorflow as tf


def local_devices(replicas: int | None) -> list[str]:
    """The GPUs of this machine, or logical CPUs, made as needed where it has none.

    Without a number of replicas these are all there are.

    Raises:
        ValueError: there are fewer.
    """
    if replicas is not None and replicas < 1:
        raise ValueError(f"`replicas` must be 1 or more. Received: {replicas}")
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and replicas is not None:
        _make_logical_cpus(replicas)
    there = len(tf.config.list_logical_devices(kind))
    replicas = there if replicas is None else replicas
    if replicas > there:
        raise ValueError(
            f"`replicas` of strategy mirrored must be at most the number of {kind}s. "
            f"Received: {replicas}, found {there}"
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
