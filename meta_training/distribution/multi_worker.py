"""Replicas in step in several processes, on one machine or on several.

Every process does the same outer steps on the same meta-parameters. Each runs the
windows of its own cohorts; their reports are exchanged by one all-reduce, and each
process takes the same mean and makes the same update. All processes share the run's
folder: each reads the checkpoint there, and leaves the state of its cohorts there for
the chief, which alone writes the checkpoint.
"""

import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from learned_optimizer.utils.arrays import load_arrays, save_arrays
from learned_optimizer.utils.cluster import cluster_of_environment
from meta_training.distribution.in_one_process import Replicas


class MultiWorker(Replicas):
    """`tf.distribute.MultiWorkerMirroredStrategy`: a process for each TF_CONFIG entry.

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
        logging.info("process %d of %d is connecting", self._process, self._processes)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())
        super().__init__(strategy, len(strategy.extended.worker_devices))
        self.is_chief = self._process == 0

    def numbers(self, cohorts):
        each = cohorts // self._processes
        return range(self._process * each, (self._process + 1) * each)

    def check_agreement(self, settings, file):
        self._check_alike(
            hashlib.sha256(settings.encode()).digest(),
            "All processes of a run must be started with the same flags",
        )
        # The chief wrote the file before this point was reached by all.
        try:
            with open(file, "rb") as opened:
                time_of_writing = os.fstat(opened.fileno()).st_mtime_ns
        except OSError:
            time_of_writing = 0
        self._check_alike(
            np.int64(time_of_writing).tobytes(),
            "--train_dir must be a folder that all processes share",
        )

    def _check_alike(self, content: bytes, rule: str) -> None:
        # Integers below 65,536 are exact in float32.
        rows = self._exchange_rows(np.frombuffer(content, "<u2").astype(np.float32))
        differing = [n for n, row in enumerate(rows) if np.any(row != rows[0])]
        if differing:
            raise ValueError(
                f"{rule}. Received: processes {differing} differ from the chief"
            )

    def gather(self, arrays, folder):
        if not self.is_chief:
            save_arrays(_file_of(folder, self._process), arrays)
        # All files are there once all processes have come to this point.
        self._exchange_rows(np.zeros(1, np.float32))
        together = dict(arrays)
        if self.is_chief:
            for process in range(1, self._processes):
                path = _file_of(folder, process)
                together |= load_arrays(path)
                path.unlink()
        return together

    def _exchange(self, reports):
        row = np.concatenate([report.to_vector() for report in reports])
        rows = self._exchange_rows(row).reshape(len(reports) * self._processes, -1)
        return [reports[0].from_vector(vector) for vector in rows]

    def _exchange_rows(self, row: np.ndarray) -> np.ndarray:
        """The float32 vectors of all processes, equally long, as rows.

        An all-reduce sums them: each process fills one row and leaves the others 0.

        Raises:
            RuntimeError: Another process is gone.
        """
        rows = np.zeros((self._processes, row.size), np.float32)
        rows[self._process] = row
        # A process has a replica on each of its devices; only the first contributes.
        values = iter([tf.constant(rows)])
        per_replica = self.strategy.experimental_distribute_values_from_function(
            lambda _: next(values, tf.zeros(rows.shape))
        )
        try:
            return self.strategy.reduce("SUM", per_replica, axis=None).numpy()
        except tf.errors.OpError as error:
            raise RuntimeError(
                "another process of the run is gone, and the others cannot go on "
                "without it; started again, all with the same flags, the run resumes "
                "from its last checkpoint"
            ) from error


def _file_of(folder: pathlib.Path, process: int) -> pathlib.Path:
    """Where a process leaves the state of its cohorts for the chief."""
    return folder / f".cohorts_of_process_{process}.npz"
