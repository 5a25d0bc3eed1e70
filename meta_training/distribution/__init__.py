"""How meta-training is distributed, on TensorFlow's own engines.

| strategy | processes | windows |
|---|---|---|
| `one_device` | one | one after the other |
| `mirrored` | one | one on each of its devices, in step |
| `multi_worker` | several, TF_CONFIG | one on each device of each, in step |
| `parameter_server` | several, TF_CONFIG | one on each worker, none waits |

The first three compute the same from the same settings, to the last bit if their
devices do: they differ in where the windows of a run's cohorts are run, and a run may
go on under another of them.
"""

from learned_optimizer.utils.cluster import parameter_server_cluster, serve
from meta_training.distribution.base import Distribution, Outcome
from meta_training.distribution.cohort import Cohort, CohortTrajectories, Report
from meta_training.distribution.mirrored import Mirrored
from meta_training.distribution.multi_worker import MultiWorker
from meta_training.distribution.one_device import OneDevice
from meta_training.distribution.parameter_server import ParameterServer

__all__ = [
    "STRATEGIES",
    "Cohort",
    "CohortTrajectories",
    "Distribution",
    "Outcome",
    "Report",
    "distribution",
]

STRATEGIES = ("one_device", "mirrored", "multi_worker", "parameter_server")


def distribution(strategy: str, replicas: int | None = None) -> Distribution:
    """The distribution of that name.

    A worker or parameter server of `parameter_server` never returns from here: it
    serves until its process is ended.

    Args:
        strategy: One of `STRATEGIES`.
        replicas: Devices of `mirrored`; None: all there are.

    Raises:
        ValueError: there is none of that name, or the devices or the cluster of
            TF_CONFIG are not what it needs.
    """
    if strategy not in STRATEGIES:
        raise ValueError(
            f"strategy must be one of {', '.join(STRATEGIES)}. Received: {strategy!r}"
        )
    if replicas is not None and strategy != "mirrored":
        raise ValueError(
            "`replicas` goes with strategy mirrored alone (TF_CONFIG says how many "
            f"processes the others have). Received: strategy {strategy}"
        )
    if strategy == "mirrored":
        return Mirrored(replicas)
    if strategy == "multi_worker":
        return MultiWorker()
    if strategy == "parameter_server":
        cluster = parameter_server_cluster()
        if cluster.task_type != "chief":
            serve(cluster)
        return ParameterServer(cluster)
    return OneDevice()
