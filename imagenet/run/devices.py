"""Where a run computes: the strategy and this process's part, see docs/clusters.md."""

import dataclasses
import json
import os

import tensorflow as tf
from absl import logging

from imagenet.run.config import RunConfig
from learned_optimizer.utils.cluster import (
    cluster_of_environment,
    parameter_server_cluster,
    serve,
)
from learned_optimizer.utils.devices import local_devices


@dataclasses.dataclass(frozen=True)
class Devices:
    """A strategy and what this process is in it.

    Attributes:
        strategy: Of TensorFlow.
        num_replicas: Devices that share one step.
        num_workers: Processes that read images.
        worker: Number of this one among them.
        asynchronous: Whether each worker steps without the others.
    """

    strategy: tf.distribute.Strategy
    num_replicas: int
    num_workers: int = 1
    worker: int = 0
    asynchronous: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether this process writes logs, checkpoints and the model."""
        return self.worker == 0

    def per_replica(self, batch_size: int, accumulation_steps: int = 1) -> int:
        """Images of one replica in one part of a step.

        Raises:
            ValueError: The batch does not divide.
        """
        parts = self.num_replicas * accumulation_steps
        if batch_size % parts:
            raise ValueError(
                "batch_size must be a multiple of replicas times accumulation_steps. "
                f"Received: batch_size={batch_size}, {self.num_replicas} replicas, "
                f"accumulation_steps={accumulation_steps}"
            )
        return batch_size // parts


def devices_of(config: RunConfig) -> Devices:
    """The devices of a run.

    A worker or parameter server of `parameter_server` never returns from here: it
    serves until its process is ended.

    Raises:
        ValueError: There are no such devices, or TF_CONFIG describes no such cluster.
    """
    if config.strategy in ("one_device", "mirrored"):
        _check_alone(config)
    devices = _MAKERS[config.strategy](config)
    # Before any other process is waited for.
    devices.per_replica(config.batch_size, config.accumulation_steps)
    return devices


def _mirrored(config):
    found = local_devices(config.replicas)
    # Several logical CPUs run out of threads for the usual way when many steps are in
    # one program.
    options = {}
    if found[0].startswith("CPU"):
        options["cross_device_ops"] = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(found, **options)
    return Devices(strategy, len(found))


def _check_alone(config):
    """Several processes that know nothing of each other would all do the same run."""
    try:
        jobs = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        count = sum(len(addresses) for addresses in jobs.values())
    except (ValueError, AttributeError, TypeError):
        # Meant for whoever reads it; no strategy of one process does.
        return
    if count > 1:
        raise ValueError(
            f"strategy {config.strategy} must run in one process; several take "
            "--strategy=multi_worker or parameter_server. Received: TF_CONFIG with "
            f"{count} processes"
        )


def _multi_worker(config):
    cluster = cluster_of_environment(
        "multi_worker", {"chief": (0, 1), "worker": (1, None)}
    )
    number = cluster.worker
    workers = cluster.count("chief") + cluster.count("worker")
    logging.info("process %d of %d meets the others", number, workers)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())
    return Devices(strategy, strategy.num_replicas_in_sync, workers, number)


def _parameter_server(config):
    cluster = parameter_server_cluster()
    if cluster.task_type != "chief":
        serve(cluster)
    workers, servers = cluster.count("worker"), cluster.count("ps")
    logging.info("waiting for %d workers and %d parameter servers", workers, servers)
    strategy = tf.distribute.ParameterServerStrategy(cluster.resolver())
    return Devices(strategy, 1, workers, asynchronous=True)


def _tpu(config):
    try:
        # "local" is the TPU that is attached to this very machine.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
            os.environ.get("TPU_NAME") or "local"
        )
    except (ValueError, tf.errors.OpError, KeyError) as error:
        raise ValueError(
            "strategy tpu must have a TPU, attached to this machine or of TPU_NAME. "
            f"Received: {error}"
        ) from error
    strategy = tf.distribute.TPUStrategy(resolver)
    return Devices(strategy, strategy.num_replicas_in_sync)


_MAKERS = {
    "one_device": lambda _: Devices(tf.distribute.get_strategy(), 1),
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "parameter_server": _parameter_server,
    "tpu": _tpu,
}
