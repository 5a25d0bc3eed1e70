"""The cluster that the environment variable `TF_CONFIG` describes, checked.

TensorFlow reads the same variable, but what it says of a mistake in it is a traceback
from deep inside, or nothing at all while it waits for a host that does not exist.
"""

import dataclasses
import json
import os
import re

import tensorflow as tf
from absl import logging

VARIABLE = "TF_CONFIG"
_PARAMETER_SERVER_JOBS = {"chief": (1, 1), "ps": (1, None), "worker": (1, None)}
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, and which of them this one is.

    Attributes:
        jobs: Of each job, the addresses of its processes.
        task_type: The job of this process.
        task_index: Its number there.
    """

    jobs: dict[str, tuple[str, ...]]
    task_type: str
    task_index: int

    def count(self, job: str) -> int:
        """Processes of a job, 0 where there is no such job."""
        return len(self.jobs.get(job, ()))

    @property
    def worker(self) -> int:
        """The number of this process among those that work in step, chief first."""
        if self.task_type == "chief":
            return 0
        return self.count("chief") + self.task_index

    def spec(self) -> tf.train.ClusterSpec:
        """The same for TensorFlow."""
        return tf.train.ClusterSpec({job: list(a) for job, a in self.jobs.items()})

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The same for a strategy."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            self.spec(),
            task_type=self.task_type,
            task_id=self.task_index,
            rpc_layer="grpc",
        )


def cluster_of_environment(
    strategy: str, allowed: dict[str, tuple[int, int | None]]
) -> Cluster:
    """The cluster of `TF_CONFIG`; `allowed` are the least and most processes of a job.

    Raises:
        ValueError: the variable is missing or describes no such cluster; the message
            says what is wrong.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        raise ValueError(
            f"strategy {strategy} must have the environment variable {VARIABLE}, as "
            f"{_EXAMPLE}. Received: none"
        )
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{VARIABLE} must be JSON ({error}). Received: {text!r}"
        ) from (error)
    if not isinstance(found, dict):
        found = {}
    jobs, task = found.get("cluster"), found.get("task")
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise ValueError(
            f"{VARIABLE} must have a `cluster` and a `task`, as in {_EXAMPLE}. "
            f"Received: {text!r}"
        )
    _check_jobs(strategy, jobs, allowed)
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs:
        raise ValueError(
            f"the task type of {VARIABLE} must be a job of its cluster, one of "
            f"{', '.join(sorted(jobs))}. Received: {kind!r}"
        )
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if type(index) is not int or not 0 <= index < len(jobs[kind]):
        raise ValueError(
            f"the task index of {VARIABLE} must be between 0 and "
            f"{len(jobs[kind]) - 1}, the number of processes of job {kind} being "
            f"{len(jobs[kind])}. Received: {index!r}"
        )
    return Cluster({job: tuple(jobs[job]) for job in jobs}, kind, index)


def _check_jobs(strategy, jobs, allowed):
    unknown = sorted(set(jobs) - set(allowed))
    if unknown:
        raise ValueError(
            f"the jobs of strategy {strategy} must be of {', '.join(allowed)}. "
            f"Received: {', '.join(unknown)} in {VARIABLE}"
        )
    seen: set[str] = set()
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(
            isinstance(address, str) and _ADDRESS.fullmatch(address)
            for address in addresses
        ):
            raise ValueError(
                f"job {job} of {VARIABLE} must be a list of addresses host:port. "
                f"Received: {addresses!r}"
            )
        twice = [a for a in addresses if a in seen or addresses.count(a) > 1]
        if twice:
            raise ValueError(
                f"each process of {VARIABLE} must have a separate address. "
                f"Received: {twice[0]} twice"
            )
        seen.update(addresses)
    for job, (least, most) in allowed.items():
        count = len(jobs.get(job, ()))
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if most == least else f"{least} or more"
            wanted = f"at most {most}" if most is not None and count > most else wanted
            raise ValueError(
                f"strategy {strategy} must have {wanted} of job {job}. "
                f"Received: {count} in {VARIABLE}"
            )


def parameter_server_cluster() -> Cluster:
    """The cluster of TF_CONFIG, with the errors of `cluster_of_environment`."""
    return cluster_of_environment("parameter_server", _PARAMETER_SERVER_JOBS)


def serve(cluster: Cluster) -> None:
    """Is a worker or a parameter server until the process is ended."""
    # A call to a process that is gone fails at once, and does not wait for it.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    server = tf.distribute.Server(
        cluster.spec(),
        job_name=cluster.task_type,
        task_index=cluster.task_index,
        protocol="grpc",
    )
    logging.info("%s %d waits for work", cluster.task_type, cluster.task_index)
    server.join()
