"""Processes in step; each takes 10 to 20 seconds before its first step."""

import pytest

from learned_optimizer import load_weights
from tests.arrays import assert_equal
from tests.cluster_processes import (
    TINY_FLAGS,
    Processes,
    rows_of,
    tf_configs,
    wait_until,
)
from tests.meta_training.distribution.runs import assert_whole_run


@pytest.mark.slow
def test_two_processes_in_step_do_what_one_device_does(tmp_path):
    """Also when they are killed in the middle and started again."""
    steps = [*TINY_FLAGS, "--outer_steps=200", "--checkpoint_every=3"]
    chief = tmp_path / "shared"

    def start(processes):
        flags = ("--strategy=multi_worker", *steps, f"--train_dir={chief}")
        configs = tf_configs(worker=2).values()
        return [processes.start(*flags, tf_config=config) for config in configs]

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
        flags = ("--cohorts=2", f"--train_dir={tmp_path / 'one'}")
        alone = processes.start(*steps, *flags)
        assert alone.wait(120) == 0, alone.text()[-4000:]
    assert not list(chief.glob(".cohorts_of*"))
    assert_whole_run(chief, 200)
    one, two = (
        load_weights(folder / "weights.npz").meta_parameters
        for folder in (tmp_path / "one", chief)
    )
    assert_equal(one, two)


@pytest.mark.slow
def test_processes_that_share_no_folder_are_refused(tmp_path):
    flags = ("--strategy=multi_worker", *TINY_FLAGS)
    with Processes(tmp_path) as processes:
        running = []
        for (_, index), tf_config in tf_configs(worker=2).items():
            folder = f"--train_dir={tmp_path / f'process{index}'}"
            running.append(processes.start(*flags, folder, tf_config=tf_config))
        for each in running:
            assert each.wait(120) == 1
            assert (
                "--train_dir must be a folder that all processes share" in each.text()
            )
