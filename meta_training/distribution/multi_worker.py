"""Replicas in step in several processes, on one machine or on several.

Every process does the same outer steps on the same meta-parameters. Each runs the
windows of its own cohorts; their reports go to all (the all-reduce of the
meta-gradient), and each takes the same mean and makes the same update. The chief alone
touches the run's folder: at the start its checkpoint goes to all, and for the next one
the trajectories of all come to it. So no folder needs to be shared.
"""

import hashlib

import numpy as np
import tensorflow as tf
from absl import logging

from learned_optimizer.utils.cluster import cluster_of_environment
from meta_training.distribution.exchange import Exchange
from meta_training.distribution.replicas import Replicas
from meta_training.outer.array_files import arrays_from_bytes, arrays_to_bytes


class MultiWorker(Replicas):
    """`tf.distribute.MultiWorkerMirroredStrategy`, one process an entry of TF_CONFIG.

    The chief is the process of job `chief`, or worker 0 where there is none.
    """

    name = "multi_worker"

    def __init__(self):
        """Waits for the other processes.

        Raises:
            ValueError: TF_CONFIG is missing or describes no such cluster.
        """
        cluster = cluster_of_environment(
            self.name, {"chief": (0, 1), "worker": (1, None)}
        )
        self._process = cluster.worker
        self._processes = cluster.count("chief") + cluster.count("worker")
        logging.info(
            "process %d of %d meets the others", self._process, self._processes
        )
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())
        super().__init__(strategy, len(strategy.extended.worker_devices))
        self.is_chief = self._process == 0
        self._all = Exchange(strategy, self._process, self._processes)

    def numbers(self, cohorts):
        each = cohorts // self._processes
        return range(self._process * each, (self._process + 1) * each)

    def agree(self, settings):
        digests = self._all.blobs(hashlib.sha256(settings.encode()).digest())
        differing = [n for n, digest in enumerate(digests) if digest != digests[0]]
        if differing:
            raise ValueError(
                "all processes of a run must be started with the same flags; those of "
                f"{differing} differ from those of the chief"
            )

    def share(self, arrays):
        blob = arrays_to_bytes(arrays) if self.is_chief else b""
        return arrays_from_bytes(self._all.blobs(blob)[0])

    def gather(self, arrays):
        together: dict[str, np.ndarray] = {}
        for blob in self._all.blobs(arrays_to_bytes(arrays)):
            together |= arrays_from_bytes(blob)
        return together

    def _exchange(self, reports):
        row = np.concatenate([report.to_vector() for report in reports])
        rows = self._all.rows(row).reshape(len(reports) * self._processes, -1)
        return [reports[0].from_vector(vector) for vector in rows]
