"""Asynchronous workers: what is stale, and what dies costs no more than it must."""

import dataclasses
import json
import types

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.utils import cluster
from learned_optimizer.utils.csv_log import read_csv
from meta_training.distribution import distribution, parameter_server
from meta_training.distribution.parameter_server import ParameterServer
from meta_training.outer.trainer import Trainer
from tests.arrays import assert_equal
from tests.cluster_processes import (
    TINY_FLAGS,
    Processes,
    rows_of,
    tf_configs,
    wait_until,
)
from tests.meta_training.distribution.runs import (
    TINY_IN_COHORTS,
    assert_whole_run,
    tiny,
)


def test_parameter_server_needs_a_cohort_for_each_worker():
    server = object.__new__(ParameterServer)
    server.num_replicas = 3
    server.check(4)
    with pytest.raises(ValueError, match="3 or more. Received: cohorts=2"):
        server.check(2)


class AtOnce:
    """A coordinator whose workers are done with a window as soon as they get it."""

    def __init__(self, strategy):
        del strategy

    def schedule(self, function, args):
        result = function(*args)
        return types.SimpleNamespace(fetch=lambda: result)

    def done(self):
        raise AssertionError("no result will ever come")


class Waiter:
    """A thread that runs when it is started, so that results come in their order."""

    def __init__(self, target, args, daemon):
        assert daemon
        self.start = lambda: target(*args)


@dataclasses.dataclass
class Counted:
    """A cohort whose windows start with their number and end with their estimates."""

    number: int
    windows: int = 0

    def begin(self):
        return (np.float32(self.windows),)

    def end(self, estimate):
        self.windows += 1
        return tuple(np.array(value).tolist() for value in estimate)


def test_a_window_is_as_stale_as_the_updates_since_it_was_handed_out(monkeypatch):
    """Two workers: each window but the first is behind by the other's update."""
    monkeypatch.setenv("GRPC_FAIL_FAST", "use_caller")
    monkeypatch.setattr(
        tf.distribute, "ParameterServerStrategy", lambda _: tf.distribute.get_strategy()
    )
    monkeypatch.setattr(tf.distribute.coordinator, "ClusterCoordinator", AtOnce)
    monkeypatch.setattr(
        parameter_server, "threading", types.SimpleNamespace(Thread=Waiter)
    )
    jobs = {"chief": ("a:1",), "ps": ("b:1",), "worker": ("c:1", "d:1")}
    server = ParameterServer(cluster.Cluster(jobs, "chief", 0))
    assert server.num_replicas == 2
    server.start(
        [Counted(0), Counted(1)],
        lambda values, window: (values["a"], values["b"], window),
    )
    outcomes = []
    for step in range(5):
        values = np.float32([[1, 2], [3, 4]]) + 10 * step
        outcomes.append(server.next_outcome({"a": values, "b": np.float32(-step)}))
    # What each window read says after which update it did.
    reports = [report for own, _ in outcomes for report in own]
    updates, numbers = [0, 0, 1, 2, 3], [0, 0, 1, 1, 2]
    for (a, b, window), update, number in zip(reports, updates, numbers, strict=True):
        np.testing.assert_array_equal(a, np.array([[1, 2], [3, 4]]) + 10 * update)
        assert (b, window) == (-update, number)
    assert [figures for _, figures in outcomes] == [
        {"cohort": float(step % 2), "staleness": float(step > 0)} for step in range(5)
    ]


@pytest.mark.distributed
@pytest.mark.slow
def test_a_parameter_server_and_one_worker_do_what_one_device_does(
    tmp_path, monkeypatch
):
    """With one cohort nothing is ever stale."""
    one = Trainer(tiny(), tmp_path / "one").train()
    configs = tf_configs(chief=1, ps=1, worker=1)
    monkeypatch.setenv("TF_CONFIG", json.dumps(configs["chief", 0]))
    found = cluster.parameter_server_cluster()
    # In this process, whose start is most of the time that such a run takes.
    servers = [
        tf.distribute.Server(found.spec(), job_name=job, task_index=0, protocol="grpc")
        for job in ("ps", "worker")
    ]
    other = Trainer(tiny(), tmp_path / "other", distribution("parameter_server"))
    assert_equal(other.train(), one)
    rows = read_csv(tmp_path / "other" / "train.csv")
    assert [row["staleness"] for row in rows] == [0] * TINY_IN_COHORTS["outer_steps"]
    start = load_weights("bootstrap-v1").meta_parameters
    assert any(np.any(value != start[name]) for name, value in one.items())
    del servers  # Not before the run is over.


@pytest.mark.slow
def test_asynchronous_workers_outlive_one_of_them_and_the_chief(tmp_path):
    folder = tmp_path / "run"
    configs = tf_configs(chief=1, ps=1, worker=2)
    log = folder / "train.csv"

    with Processes(tmp_path) as processes:

        def start(job, index):
            return processes.start(
                *("--strategy=parameter_server", *TINY_FLAGS, "--outer_steps=300"),
                *("--checkpoint_every=10", f"--train_dir={folder}"),
                tf_config=configs[job, index],
            )

        running = {key: start(*key) for key in configs}
        wait_until(lambda: rows_of(log) > 40, 150, running.values())
        # A worker dies: the other one does its work too.
        running.pop(("worker", 1)).kill()
        before = rows_of(log)
        wait_until(lambda: rows_of(log) > before + 40, 60, running.values())
        assert {row["cohort"] for row in read_csv(log)[-20:]} == {0, 1}
        # The chief dies; the worker comes back. The others just wait for a chief.
        running.pop(("chief", 0)).kill()
        running["worker", 1] = start("worker", 1)
        running["chief", 0] = chief = start("chief", 0)
        assert chief.wait(150) == 0, chief.text()[-6000:]
        assert "resumed from outer step" in chief.text()
        # A parameter server and a worker wait for the next chief.
        assert running["ps", 0].process.poll() is None
    rows = assert_whole_run(folder, 300)
    # As a rule a window misses the one update of the other worker; while a worker is
    # slow to come back, the other makes any number of them.
    staleness = [row["staleness"] for row in rows]
    assert min(staleness) >= 0 and np.median(staleness) <= 1 <= max(staleness)
