"""What TF_CONFIG must say."""

import json

import pytest

from learned_optimizer.utils import cluster

READ = {
    "multi_worker": lambda: cluster.cluster_of_environment(
        "multi_worker", {"chief": (0, 1), "worker": (1, None)}
    ),
    "parameter_server": cluster.parameter_server_cluster,
}
WORKERS = {"worker": ["a:1", "b:2"]}
SERVERS = {"chief": ["a:1"], "ps": ["b:1"], "worker": ["c:1", "d:1"]}
FIRST = "worker", 0


def environment(monkeypatch, jobs, kind, index):
    task = {"type": kind, "index": index}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must have .*variable TF_CONFIG.*Received: none"),
        ("{cluster", "must be JSON"),
        ("[]", "must have a `cluster` and a `task`"),
        ('{"cluster": {"worker": ["a:1"]}}', "must have a `cluster` and a `task`"),
    ],
)
@pytest.mark.parametrize("strategy", READ)
def test_what_is_no_cluster_is_refused(strategy, text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        READ[strategy]()


@pytest.mark.parametrize(
    "strategy, jobs, task, message",
    [
        ("multi_worker", WORKERS, ("boss", 0), "one of worker. Received: 'boss'"),
        ("multi_worker", WORKERS, ("worker", 2), "between 0 and 1.* Received: 2"),
        ("multi_worker", WORKERS, ("worker", None), "0 and 1.* Received: None"),
        ("multi_worker", SERVERS, FIRST, "must be of chief, worker. Received: ps"),
        ("multi_worker", {"worker": ["a"]}, FIRST, "list of addresses host:port"),
        ("multi_worker", {"worker": ["a:1"] * 2}, FIRST, "Received: a:1 twice"),
        ("parameter_server", WORKERS, FIRST, "have 1 of job chief. Received: 0"),
        (
            *("parameter_server", {**SERVERS, "chief": ["e:1", "f:1"]}, FIRST),
            "must have at most 1 of job chief. Received: 2",
        ),
        (
            *("parameter_server", {**SERVERS, "ps": []}, FIRST),
            "must have 1 or more of job ps. Received: 0",
        ),
    ],
)
def test_a_wrong_cluster_is_refused(strategy, jobs, task, message, monkeypatch):
    environment(monkeypatch, jobs, *task)
    with pytest.raises(ValueError, match=message):
        READ[strategy]()


def test_a_right_tf_config_is_read(monkeypatch):
    environment(monkeypatch, SERVERS, "worker", "1")
    found = cluster.parameter_server_cluster()
    assert (found.task_type, found.task_index) == ("worker", 1)
    assert found.spec().as_dict() == SERVERS
    assert found.count("worker") == 2 and found.count("evaluator") == 0
    assert isinstance(found, cluster.Cluster)


@pytest.mark.parametrize(
    "jobs, task, worker",
    [
        (WORKERS, ("worker", 0), 0),
        (WORKERS, ("worker", 1), 1),
        ({**WORKERS, "chief": ["c:1"]}, ("chief", 0), 0),
        ({**WORKERS, "chief": ["c:1"]}, ("worker", 1), 2),
    ],
)
def test_the_chief_is_the_first_of_those_in_step(jobs, task, worker, monkeypatch):
    environment(monkeypatch, jobs, *task)
    assert READ["multi_worker"]().worker == worker
