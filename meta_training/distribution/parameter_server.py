"""Asynchronous workers, as in the released code.

The parameter server holds the meta-parameters. The chief owns everything else:
trajectories, meta-optimizer, checkpoint and log. It schedules a window of each cohort
on any free worker; the worker reads the current meta-parameters, runs the window and
returns the estimate. The chief applies each estimate as soon as it arrives, writes the
new meta-parameters to the server and schedules the cohort's next window. Other workers
may have changed the meta-parameters in the meantime, so the gradient is a little stale.

Workers are stateless. If one dies, only its current window is lost: TensorFlow's
coordinator schedules it again on another worker.
"""

import os
import queue
import threading
import time

import numpy as np
import tensorflow as tf
from absl import logging

from learned_optimizer.utils.cluster import Cluster
from meta_training.distribution.base import Distribution

_SECONDS_BETWEEN_CHECKS = 1.0


class ParameterServer(Distribution):
    """The chief's side of `tf.distribute.ParameterServerStrategy`."""

    name = "parameter_server"

    def __init__(self, cluster: Cluster):
        """Waits for the workers and parameter servers."""
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
        self.num_replicas = cluster.count("worker")
        logging.info(
            "waiting for %d workers and %d parameter servers",
            self.num_replicas,
            cluster.count("ps"),
        )
        self._strategy = tf.distribute.ParameterServerStrategy(cluster.resolver())
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting: list = []
        self._updates = 0

    def check(self, cohorts):
        if cohorts < self.num_replicas:
            raise ValueError(
                "cohorts must be at least the number of workers of strategy "
                f"{self.name}, {self.num_replicas} or more. Received: "
                f"cohorts={cohorts}"
            )

    def start(self, cohorts, estimate):
        self._estimate = estimate
        self._waiting = list(cohorts)
        self._window = None

    def next_outcome(self, meta_parameters):
        try:
            if self._window is None:
                self._prepare(meta_parameters)
            self._write(meta_parameters)
            for cohort in self._waiting:
                self._schedule(cohort)
            self._waiting = []
            cohort, estimate, version = self._next_result()
        except tf.errors.UnavailableError as error:
            raise RuntimeError(
                "a parameter server is gone, and the run cannot continue without it; "
                "when it and then the chief are started again with the same flags, the "
                "run resumes from its last checkpoint"
            ) from error
        self._waiting.append(cohort)
        staleness = float(self._updates - version)
        self._updates += 1
        figures = {"cohort": float(cohort.number), "staleness": staleness}
        return [cohort.end(estimate)], figures

    def _prepare(self, meta_parameters):
        """Creates the variable and the function that workers run."""
        self._names = list(meta_parameters)
        shapes = [np.shape(meta_parameters[name]) for name in self._names]
        sizes = [int(np.prod(shape)) for shape in shapes]
        # One variable, so that no window sees half an update. Its last number
        # counts the updates, to measure staleness.
        with self._strategy.scope():
            self._variable = tf.Variable(tf.zeros([sum(sizes) + 1]), trainable=False)

        @tf.function(autograph=False)
        def window(*start):
            # The variable is not on the worker, so it is read here: the compiled
            # function takes values.
            *pieces, version = tf.split(self._variable.read_value(), [*sizes, 1])
            values = {
                name: tf.reshape(piece, shape)
                for name, piece, shape in zip(self._names, pieces, shapes, strict=True)
            }
            return self._estimate(values, *start), version[0]

        self._window = window

    def _write(self, meta_parameters):
        numbers = [np.ravel(meta_parameters[name]) for name in self._names]
        numbers = np.concatenate([*numbers, [self._updates]]).astype(np.float32)
        self._variable.assign(numbers)

    def _schedule(self, cohort):
        start = tf.nest.map_structure(tf.convert_to_tensor, tuple(cohort.begin()))
        result = self._coordinator.schedule(self._window, args=start)
        # The coordinator has no callback for results, so a thread waits for each.
        threading.Thread(
            target=self._wait_for, args=(cohort, result), daemon=True
        ).start()

    def _wait_for(self, cohort, result):
        while True:
            try:
                self._results.put((cohort, *result.fetch()))
                return
            except tf.errors.OpError:
                # A worker died just before its result was copied: the coordinator runs
                # the window again. It raises any other error in `_next_result`.
                time.sleep(_SECONDS_BETWEEN_CHECKS)

    def _next_result(self):
        while True:
            try:
                return self._results.get(timeout=_SECONDS_BETWEEN_CHECKS)
            except queue.Empty:
                # Raises any error other than the death of a worker.
                self._coordinator.done()
