"""Everything in one process: on one device, or in step on several.

`Replicas` is also what processes that work in step do on their own devices.
"""

import tensorflow as tf

from learned_optimizer.utils.devices import local_devices
from meta_training.distribution.base import Distribution
from meta_training.distribution.cohort import WindowStart


class OneDevice(Distribution):
    """Runs the windows of all cohorts one after the other."""

    name = "one_device"

    def start(self, cohorts, estimate):
        self._cohorts = cohorts
        self._estimate = estimate

    def next_outcome(self, meta_parameters):
        reports = [
            cohort.end(self._estimate(meta_parameters, *cohort.begin()))
            for cohort in self._cohorts
        ]
        return reports, {}


class Replicas(Distribution):
    """Runs one window on each local device of the strategy, in parallel.

    The reports are gathered on the host, where the meta-optimizer is, and averaged in
    the order of the cohorts, not in the order in which devices finish. So the sum is
    the same, bit for bit, for any number of devices.
    """

    def __init__(self, strategy: tf.distribute.Strategy, local_replicas: int):
        self.strategy = strategy
        self.local_replicas = local_replicas
        self.num_replicas = strategy.num_replicas_in_sync

    def start(self, cohorts, estimate):
        self._cohorts = cohorts
        self._structure = None

        def on_replica(meta_parameters, *flat):
            start = WindowStart(*tf.nest.pack_sequence_as(self._structure, flat))
            return estimate(meta_parameters, *start)

        # Only `estimate` is compiled with XLA: compiling `run` of a strategy fails. The
        # graph around it lets the replicas run in parallel.
        @tf.function(autograph=False)
        def run(meta_parameters, *flat):
            return self.strategy.run(on_replica, args=(meta_parameters, *flat))

        self._run = run

    def next_outcome(self, meta_parameters):
        reports = []
        for first in range(0, len(self._cohorts), self.local_replicas):
            reports += self._round(
                meta_parameters, self._cohorts[first : first + self.local_replicas]
            )
        return self._exchange(reports), {}

    def _round(self, meta_parameters, cohorts):
        """A window of each of these cohorts, one on each local device."""
        starts = [cohort.begin() for cohort in cohorts]
        self._structure = starts[0]
        flat = [
            self._per_replica(values)
            for values in zip(*map(tf.nest.flatten, starts), strict=True)
        ]
        estimates = self._run(meta_parameters, *flat)
        by_replica = [
            self.strategy.experimental_local_results(value)
            for value in tf.nest.flatten(estimates)
        ]
        return [
            cohort.end(tf.nest.pack_sequence_as(estimates, values))
            for cohort, values in zip(
                cohorts, zip(*by_replica, strict=True), strict=True
            )
        ]

    def _per_replica(self, values):
        """The values of the local devices, in the form the strategy needs."""
        values = iter(values)
        return self.strategy.experimental_distribute_values_from_function(
            lambda _: tf.convert_to_tensor(next(values))
        )

    def _exchange(self, reports):
        """The reports of all processes; here those of the only one."""
        return reports


class Mirrored(Replicas):
    """`tf.distribute.MirroredStrategy`: replicas in step on one machine."""

    name = "mirrored"

    def __init__(self, replicas: int | None = None):
        """Takes so many devices, see `local_devices`, or all there are."""
        devices = local_devices(replicas)
        # Nothing is reduced on devices, see `Replicas`, so NCCL is never started.
        strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        super().__init__(strategy, len(devices))
