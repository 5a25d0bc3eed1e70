"""Where windows are run changes no result; what dies costs no more than it must."""

import csv
import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import load_weights
from learned_optimizer.utils import cluster
from meta_training import distribution as distributions
from meta_training.distribution import distribution, parameter_server
from meta_training.distribution.cohort import cohort_seed
from meta_training.distribution.one_device import OneDevice
from meta_training.outer.meta_optimizers import MetaOptimizer
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set
from meta_training.tasks.released.quadratics import Quadratic
from tests.cluster_processes import (
    TINY_FLAGS,
    Processes,
    rows_of,
    tf_configs,
    wait_until,
)

TINY = dict(
    task_set="distribution_test",
    init_weights="bootstrap-v1",
    estimator="pes",
    block_size=2,
    min_window_steps=3,
    mean_window_steps=4.0,
    max_window_steps=5,
    mean_horizon=9.0,
    objective_rows=None,
    checkpoint_every=2,
    validate_every=0,
    outer_steps=4,
)
OF_EQUAL_LENGTH = dict(min_window_steps=4, max_window_steps=4)


@register_task_set("distribution_test")
def _distribution_test():
    return [Quadratic(3), Quadratic(4, noise_stdev=0.3)]


def tiny(**changes):
    return preset("default", **{**TINY, **changes})


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def read_rows(folder):
    with open(folder / "train.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_whole_run(folder, outer_steps):
    """All outer steps, none twice, and meta-parameters that moved and are finite."""
    rows = read_rows(folder)
    assert [int(row["outer_step"]) for row in rows] == list(range(outer_steps))
    weights = load_weights(folder / "weights.npz")
    assert weights.card["outer_step"] == outer_steps
    start = load_weights("bootstrap-v1").meta_parameters
    moved = weights.meta_parameters
    assert all(np.all(np.isfinite(value)) for value in moved.values())
    assert any(np.any(value != start[name]) for name, value in moved.items())
    return rows


class TestCohorts:
    @pytest.mark.slow
    def test_the_meta_gradient_is_the_mean_over_cohorts(self, tmp_path):
        seeds = [7, cohort_seed(7, 1)]
        assert seeds[0] != seeds[1]
        alone = []
        for seed in seeds:
            config = tiny(seed=seed, **OF_EQUAL_LENGTH)
            trainer = Trainer(config, tmp_path / str(seed))
            (report,) = trainer.distribution.next_outcome(
                trainer.meta_parameters
            ).reports
            alone.append(report.gradient)
        config = tiny(seed=7, cohorts=2, **OF_EQUAL_LENGTH)
        trainer = Trainer(config, tmp_path / "both")
        start = dict(trainer.meta_parameters)
        trained = trainer.train(until=1)
        mean = {name: (alone[0][name] + alone[1][name]) / 2 for name in start}
        optimizer = MetaOptimizer(
            "adam", config.meta_learning_rate, clip_norm=config.clip_norm
        )
        expected, _ = optimizer.apply(
            start, optimizer.clip(mean), optimizer.initial_state(start), 0
        )
        for name, value in expected.items():
            np.testing.assert_allclose(trained[name], value, rtol=1e-6, err_msg=name)
            assert np.any(alone[0][name] != alone[1][name])

    def test_windows_are_equally_long(self, tmp_path):
        config = tiny(cohorts=2, max_window_steps=500, mean_window_steps=200.0)
        one, other = Trainer(config, tmp_path).cohorts
        lengths = [one.trajectories.window_steps(step) for step in range(9)]
        assert len(set(lengths)) > 5
        assert lengths == [other.trajectories.window_steps(step) for step in range(9)]


@pytest.mark.distributed
class TestMirrored:
    @pytest.mark.slow
    def test_two_replicas_do_what_one_device_does(self, tmp_path):
        config = tiny(cohorts=2, estimator="truncated", second_derivatives=False)
        one = Trainer(config, tmp_path / "one").train()
        two = Trainer(config, tmp_path / "two", distribution("mirrored", 2)).train()
        assert_same(one, two)

    @pytest.mark.slow
    def test_two_replicas_go_on_from_the_checkpoint_of_one_device(self, tmp_path):
        # Four cohorts on two replicas: each has two of them.
        config = tiny(cohorts=4)
        whole = Trainer(config, tmp_path / "whole")
        save = whole.save

        def save_and_copy():
            save()
            if whole.outer_step == 2:
                shutil.copytree(tmp_path / "whole", tmp_path / "parts")

        whole.save = save_and_copy
        whole.train()
        second = Trainer(config, tmp_path / "parts", distribution("mirrored", 2))
        assert second.outer_step == 2
        assert_same(whole.meta_parameters, second.train())

    @pytest.mark.slow
    def test_cohorts_must_divide_among_replicas(self, tmp_path):
        with pytest.raises(ValueError, match="multiple.*cohorts=3 and 2 replicas"):
            Trainer(tiny(cohorts=3), tmp_path, distribution("mirrored", 2))
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match="at most the number of CPUs. Received: 3"):
            distribution("mirrored", 3)
        with pytest.raises(ValueError, match="1 or more. Received: 0"):
            distribution("mirrored", 0)


def test_parameter_server_needs_a_cohort_for_each_worker():
    server = object.__new__(distributions.ParameterServer)
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
    jobs = {job: tuple(addresses) for job, addresses in SERVERS.items()}
    server = distributions.ParameterServer(cluster.Cluster(jobs, "chief", 0))
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
    reports = [report for outcome in outcomes for report in outcome.reports]
    for (a, b, window), (update, number) in zip(
        reports, [(0, 0), (0, 0), (1, 1), (2, 1), (3, 2)], strict=True
    ):
        assert a == [
            [1 + 10 * update, 2 + 10 * update],
            [3 + 10 * update, 4 + 10 * update],
        ]
        assert b == -update
        assert window == number
    assert [outcome.figures for outcome in outcomes] == [
        {"cohort": 0.0, "staleness": 0.0},
        {"cohort": 1.0, "staleness": 1.0},
        {"cohort": 0.0, "staleness": 1.0},
        {"cohort": 1.0, "staleness": 1.0},
        {"cohort": 0.0, "staleness": 1.0},
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
    assert_same(one, other.train())
    rows = read_rows(tmp_path / "other")
    assert [float(row["staleness"]) for row in rows] == [0.0] * TINY["outer_steps"]
    start = load_weights("bootstrap-v1").meta_parameters
    assert any(np.any(value != start[name]) for name, value in one.items())
    del servers  # Not before the run is over.


@pytest.mark.slow
def test_a_checkpoint_in_the_middle_of_a_window_goes_on_from_its_start(tmp_path):
    """As under parameter servers, where windows are under way all the time."""
    config = tiny(outer_steps=3)
    whole = Trainer(config, tmp_path / "whole").train()

    class SavesLate(OneDevice):
        def next_outcome(self, meta_parameters):
            (cohort,) = self._cohorts
            start = cohort.begin()
            trainer.save()
            return distributions.Outcome(
                [cohort.end(self._estimate(meta_parameters, *start))], {}
            )

    trainer = Trainer(config, tmp_path / "parts", SavesLate())
    trainer._outer_step()
    trainer._outer_step()
    resumed = Trainer(config, tmp_path / "parts")
    assert resumed.outer_step == 1
    assert_same(whole, resumed.train())


def test_only_the_chief_validates_and_writes(tmp_path):
    class Member(OneDevice):
        is_chief = False

    def validate(meta_parameters):
        raise AssertionError("must not be called")

    config = tiny(validate_every=1)
    folder = tmp_path / "member"
    trainer = Trainer(config, folder, Member())
    trainer.validate_with(validate)
    trainer.train()
    assert trainer.outer_step == config.outer_steps
    assert not folder.exists()


WORKERS = {"worker": ["a:1", "b:2"]}
SERVERS = {"chief": ["a:1"], "ps": ["b:1"], "worker": ["c:1", "d:1"]}
FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    "strategy, tf_config, message",
    [
        ("multi_worker", None, "needs the environment variable TF_CONFIG.*not set"),
        ("parameter_server", None, "needs the environment variable TF_CONFIG"),
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
            "jobs of strategy multi_worker are chief, worker; TF_CONFIG has ps",
        ),
        (
            "multi_worker",
            {"cluster": {"worker": ["a"]}, "task": FIRST},
            "must be a list of addresses host:port",
        ),
        (
            "multi_worker",
            {"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST},
            "a:1 is there twice",
        ),
        (
            "parameter_server",
            {"cluster": WORKERS, "task": FIRST},
            "needs 1 of job chief, TF_CONFIG has 0",
        ),
        (
            "parameter_server",
            {"cluster": {**SERVERS, "chief": ["e:1", "f:1"]}, "task": FIRST},
            "needs at most 1 of job chief, TF_CONFIG has 2",
        ),
        (
            "parameter_server",
            {"cluster": {**SERVERS, "ps": []}, "task": FIRST},
            "needs 1 or more of job ps, TF_CONFIG has 0",
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
        distribution(strategy)


def test_a_right_tf_config_is_read(monkeypatch):
    wanted = {"cluster": SERVERS, "task": {"type": "worker", "index": "1"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(wanted))
    found = cluster.parameter_server_cluster()
    assert (found.task_type, found.task_index) == ("worker", 1)
    assert found.spec().as_dict() == SERVERS
    assert found.count("worker") == 2 and found.count("evaluator") == 0
    assert isinstance(found, cluster.Cluster)


def test_strategies_are_named():
    assert isinstance(distribution("one_device"), OneDevice)
    with pytest.raises(ValueError, match="one of one_device, mirrored.*'two_devices'"):
        distribution("two_devices")
    with pytest.raises(ValueError, match="goes with strategy mirrored alone"):
        distribution("one_device", 2)


def test_the_command_line_says_what_is_wrong(tmp_path):
    with Processes(tmp_path) as processes:
        folder = f"--train_dir={tmp_path / 'run'}"
        running = processes.start("--strategy=multi_worker", folder, *TINY_FLAGS)
        assert running.wait(60) == 1
        assert "needs the environment variable TF_CONFIG" in running.text()
        assert not (tmp_path / "run").exists()


# The tests below start processes of 10 to 20 seconds each before the first step.


@pytest.mark.slow
def test_two_processes_in_step_do_what_one_device_does(tmp_path):
    """Also when they are killed in the middle and started again."""
    steps = [*TINY_FLAGS, "--outer_steps=200", "--checkpoint_every=3"]
    chief = tmp_path / "shared"

    def start(processes):
        return [
            processes.start(
                "--strategy=multi_worker",
                *steps,
                f"--train_dir={chief}",
                tf_config=tf_config,
            )
            for tf_config in tf_configs(worker=2).values()
        ]

    with Processes(tmp_path) as processes:
        running = start(processes)
        wait_until(lambda: rows_of(chief / "train.csv") > 50, 120, running)
        running[1].kill()
        # Those that work in step with it cannot go on, and say so.
        assert running[0].wait(60) == 1
        assert "another process of the run is gone" in running[0].text()
        assert rows_of(chief / "train.csv") < 200
    with Processes(tmp_path) as processes:
        for each in start(processes):
            assert each.wait(120) == 0, each.text()[-4000:]
            assert "resumed from outer step" in each.text()
        alone = processes.start(
            *steps, "--cohorts=2", f"--train_dir={tmp_path / 'one'}"
        )
        assert alone.wait(120) == 0, alone.text()[-4000:]
    assert not list(chief.glob(".cohorts_of*"))
    assert_whole_run(chief, 200)
    one, two = (
        load_weights(folder / "weights.npz").meta_parameters
        for folder in (tmp_path / "one", chief)
    )
    assert_same(one, two)


@pytest.mark.slow
def test_processes_that_share_no_folder_are_refused(tmp_path):
    with Processes(tmp_path) as processes:
        running = [
            processes.start(
                "--strategy=multi_worker",
                *TINY_FLAGS,
                f"--train_dir={tmp_path / f'process{index}'}",
                tf_config=tf_config,
            )
            for (_, index), tf_config in tf_configs(worker=2).items()
        ]
        for each in running:
            assert each.wait(120) == 1
            assert "--train_dir must be a folder that all processes share" in (
                each.text()
            )


@pytest.mark.slow
def test_asynchronous_workers_outlive_one_of_them_and_the_chief(tmp_path):
    folder = tmp_path / "run"
    configs = tf_configs(chief=1, ps=1, worker=2)
    log = folder / "train.csv"

    with Processes(tmp_path) as processes:

        def start(job, index):
            return processes.start(
                "--strategy=parameter_server",
                *TINY_FLAGS,
                "--outer_steps=300",
                "--checkpoint_every=10",
                f"--train_dir={folder}",
                tf_config=configs[job, index],
            )

        running = {key: start(*key) for key in configs}
        wait_until(lambda: rows_of(log) > 40, 150, running.values())
        # A worker dies: the other one does its work too.
        running.pop(("worker", 1)).kill()
        before = rows_of(log)
        wait_until(lambda: rows_of(log) > before + 40, 60, running.values())
        assert {row["cohort"] for row in read_rows(folder)[-20:]} == {"0", "1"}
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
    staleness = [float(row["staleness"]) for row in rows]
    assert min(staleness) >= 0 and np.median(staleness) <= 1 <= max(staleness)
