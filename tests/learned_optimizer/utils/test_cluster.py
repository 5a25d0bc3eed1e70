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
FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    "strategy, tf_config, message",
    [
        (
            "multi_worker",
            None,
            "must have .*variable TF_CONFIG.*Received: none",
        ),
        ("parameter_server", None, "must have the environment variable TF_CONFIG"),
        ("multi_worker", "{cluster", "must be JSON"),
        ("multi_worker", [], "must have a `cluster` and a `task`"),
        ("multi_worker", {"cluster": WORKERS}, "must have a `cluster` and a `task`"),
        (
            "multi_worker",
            {"cluster": WORKERS, "task": {"type": "boss", "index": 0}},
            "must be a job of its cluster, one of worker. Received: 'boss'",
        ),
        (
            "multi_worker",
            {"cluster": WORKERS, "task": {"type": "worker", "index": 2}},
            "between 0 and 1.* Received: 2",
        ),
        (
            "multi_worker",
            {"cluster": WORKERS, "task": {"type": "worker"}},
            "between 0 and 1.* Received: None",
        ),
        (
            "multi_worker",
            {"cluster": SERVERS, "task": FIRST},
            "jobs of strategy multi_worker must be of chief, worker. Received: ps",
        ),
        (
            "multi_worker",
            {"cluster": {"worker": ["a"]}, "task": FIRST},
            "must be a list of addresses host:port",
        ),
        (
            "multi_worker",
            {"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST},
            "Received: a:1 twice",
        ),
        (
            "parameter_server",
            {"cluster": WORKERS, "task": FIRST},
            "must have 1 of job chief. Received: 0",
        ),
        (
            "parameter_server",
            {"cluster": {**SERVERS, "chief": ["e:1", "f:1"]}, "task": FIRST},
            "must have at most 1 of job chief. Received: 2",
        ),
        (
            "parameter_server",
            {"cluster": {**SERVERS, "ps": []}, "task": FIRST},
            "must have 1 or more of job ps. Received: 0",
        ),
    ],
)
def test_a_wrong_tf_config_is_refused(monkeypatch, strategy, tf_config, message):
    if tf_config is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        text = tf_config if isinstance(tf_config, str) else json.dumps(tf_config)
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        READ[strategy]()


def test_a_right_tf_config_is_read(monkeypatch):
    wanted = {"cluster": SERVERS, "task": {"type": "worker", "index": "1"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(wanted))
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
    kind, index = task
    found = {"cluster": jobs, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(found))
    assert READ["multi_worker"]().worker == worker
