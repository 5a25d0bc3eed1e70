"""How meta-training is distributed, on TensorFlow's own engines.

| strategy | processes | windows |
|---|---|---|
| `one_device` | one | one after the other |
| `mirrored` | one | one on each of its devices, in step |
| `multi_worker` | several, TF_CONFIG | one on each device of each, in step |
| `parameter_server` | several, TF_CONFIG | one on each worker, none waits |

The first three differ only in where the windows of a run's cohorts are computed. From
the same settings they compute the same result, bit for bit if their devices do, and a
run may resume under another of them.
"""

from learned_optimizer.utils.cluster import parameter_server_cluster, serve
from learned_optimizer.utils.flags import require_member
from meta_training.distribution.base import Distribution
from meta_training.distribution.cohort import Cohort, Report, cohort_seed
from meta_training.distribution.in_one_process import Mirrored, OneDevice
from meta_training.distribution.multi_worker import MultiWorker
from meta_training.distribution.parameter_server import ParameterServer

__all__ = [
    "STRATEGIES",
    "Cohort",
    "Distribution",
    "Report",
    "cohort_seed",
    "distribution",
]

STRATEGIES = ("one_device", "mirrored", "multi_worker", "parameter_server")


def distribution(strategy: str, replicas: int | None = None) -> Distribution:
    """The distribution of that name.

    For a worker or parameter server of `parameter_server` this function never returns:
    it serves until its process is ended. `replicas` are devices of `mirrored`.

    Raises:
        ValueError: There is none of that name, or the devices or the cluster of
            TF_CONFIG do not fit.
    """
    require_member("strategy", strategy, STRATEGIES)
    if replicas is not None and strategy != "mirrored":
        raise ValueError(
            "replicas must go with strategy mirrored alone (TF_CONFIG says how many "
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
