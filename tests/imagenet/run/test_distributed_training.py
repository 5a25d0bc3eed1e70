"""Runs as they are started: processes, several of them, killed and told to end."""

import json
import re
import signal

import keras
import numpy as np
import pytest

from imagenet.input.data import DataConfig, open_images
from learned_optimizer.utils.csv_log import read_csv
from tests.cluster_processes import Processes, rows_of, tf_configs, wait_until
from tests.imagenet.small_data import loss_of_first

MODULE = "tests.imagenet.tiny"
FLAGS = (
    "--num_classes=4",
    "--num_images=40",
    "--num_validation_images=10",
    "--image_size=32",
    "--batch_size=8",
    "--steps_per_loop=2",
)
SECONDS = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"--data_dir={tmp_path_factory.mktemp('data')}"


def flags(data, folder, *more, model="tiny", optimizer="adam", steps=6):
    return (
        *FLAGS,
        data,
        f"--model={model}",
        f"--optimizer={optimizer}",
        f"--train_steps={steps}",
        f"--model_dir={folder}",
        *more,
    )


def curve(folder):
    rows = read_csv(folder / "train.csv")
    for row in rows:
        del row["images_per_second"]
    return rows


def weights_of(folder):
    model = keras.models.load_model(folder / "model.keras")
    return [np.array(variable) for variable in model.variables]


def assert_same_run(one, other, exactly=False):
    rtol, atol = (0, 0) if exactly else (2e-4, 2e-5)
    for first, second in zip(curve(one), curve(other), strict=True):
        assert first == pytest.approx(second, rel=rtol, abs=atol)
    for first, second in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=rtol, atol=atol)
    first, second = (read_csv(folder / "eval.csv")[-1] for folder in (one, other))
    assert first == pytest.approx(second, rel=max(rtol, 1e-6))


def run_alone(processes, *arguments):
    alone = processes.start(*arguments)
    assert alone.wait(SECONDS) == 0, alone.text()[-4000:]
    return alone


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["hierarchical_rnn", "momentum"])
def test_two_replicas_do_what_one_device_does(data, tmp_path, optimizer):
    with Processes(tmp_path, MODULE) as processes:
        for name, more in (
            ("one", ["--input_shards=1"]),
            ("two", ["--strategy=mirrored", "--replicas=2", "--input_shards=1"]),
        ):
            run_alone(
                processes,
                *flags(
                    data,
                    tmp_path / name,
                    *more,
                    "--accumulation_steps=2",
                    # So large that it shows if replicas count it twice.
                    "--weight_decay=0.1",
                    optimizer=optimizer,
                    model="plain",
                ),
            )
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_replicas_evaluate_is_what_they_save(data, tmp_path, workers):
    """Also where each has statistics of its own for its normalizations."""
    folder = tmp_path / "two"
    more = ["--strategy=multi_worker"]
    configs = tf_configs(worker=2).values()
    if workers == 1:
        more = ["--strategy=mirrored", "--replicas=2"]
        configs = [None]
    with Processes(tmp_path, MODULE) as processes:
        running = [
            # Steps enough for replicas without their mean to differ by 1e-4 and more.
            processes.start(*flags(data, folder, *more, steps=60), tf_config=config)
            for config in configs
        ]
        for each in running:
            assert each.wait(SECONDS) == 0, each.text()[-4000:]
        # Of the checkpoint, on one device.
        again = run_alone(processes, *flags(data, folder, steps=60), "--eval_only")
    row = read_csv(folder / "eval.csv")[-1]
    assert row["images"] == 10
    (restored,) = re.findall(r"\bloss ([0-9.]+), images 10", again.text())
    # Of which six digits are printed.
    assert float(restored) == pytest.approx(row["loss"], abs=6e-6)
    model = keras.models.load_model(folder / "model.keras")
    settings = DataConfig(
        dataset="generated",
        data_dir=data.removeprefix("--data_dir="),
        image_size=32,
        num_classes=4,
        num_images=40,
        num_validation_images=10,
    )
    images = open_images(settings)
    loss = loss_of_first(model, images, 10)
    assert row["loss"] == pytest.approx(loss, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["hierarchical_rnn", "adam"])
def test_two_workers_of_a_batch_are_one_of_twice_that(data, tmp_path, optimizer):
    more = ("--synchronized_batch_normalization", "--input_shards=2")
    workers = flags(
        data,
        tmp_path / "workers",
        *more,
        "--strategy=multi_worker",
        optimizer=optimizer,
    )
    with Processes(tmp_path, MODULE) as processes:
        run_alone(processes, *flags(data, tmp_path / "one", *more, optimizer=optimizer))
        running = [
            processes.start(*workers, tf_config=config)
            for config in tf_configs(worker=2).values()
        ]
        for each in running:
            assert each.wait(SECONDS) == 0, each.text()[-4000:]
    assert_same_run(tmp_path / "one", tmp_path / "workers")


@pytest.mark.slow
def test_a_lost_worker_is_reported_and_the_run_goes_on(data, tmp_path):
    """Within a minute, and from the checkpoint with the same numbers."""
    common = ("--synchronized_batch_normalization", "--input_shards=2")
    steps = 400
    one, two = tmp_path / "one", tmp_path / "two"

    def start(processes):
        return [
            processes.start(
                *flags(
                    data,
                    two,
                    *common,
                    "--strategy=multi_worker",
                    "--checkpoint_every=20",
                    steps=steps,
                ),
                tf_config=config,
            )
            for config in tf_configs(worker=2).values()
        ]

    with Processes(tmp_path, MODULE) as processes:
        running = start(processes)
        wait_until(lambda: rows_of(two / "train.csv") > 30, SECONDS, running)
        running[1].kill()
        assert running[0].wait(60) == 74
        assert "another process of the run is gone" in running[0].text()
    (tmp_path / "again").mkdir()
    with Processes(tmp_path / "again", MODULE) as processes:
        for each in start(processes):
            assert each.wait(SECONDS) == 0, each.text()[-4000:]
            resumed = int(re.search(r"resumed from step (\d+)", each.text())[1])
        run_alone(processes, *flags(data, one, *common, steps=steps))
    assert [row["step"] for row in curve(two)] == [*range(1, steps + 1)]
    # Rounding differs between one process and two, and grows over hundreds of steps;
    # so only some after those that were done before the loss.
    losses = [
        np.array([row["loss"] for row in curve(folder)[: resumed + 20]])
        for folder in (one, two)
    ]
    np.testing.assert_allclose(losses[0][:20], losses[1][:20], rtol=1e-3)
    np.testing.assert_allclose(losses[0][resumed:], losses[1][resumed:], rtol=2e-2)
    # Which no other batches have by chance.
    shifted = np.abs(losses[0][resumed + 1 :] / losses[1][resumed:-1] - 1)
    assert np.median(shifted) > 2e-2


@pytest.mark.slow
def test_one_worker_that_is_told_to_end_ends_all(data, tmp_path, monkeypatch):
    """With one checkpoint, and nothing left of what the others had to write."""
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setenv("TMPDIR", str(aside))
    folder = tmp_path / "run"
    arguments = flags(data, folder, "--strategy=multi_worker", steps=100_000)
    with Processes(tmp_path, MODULE) as processes:
        running = [
            processes.start(*arguments, "--checkpoint_every=10", tf_config=config)
            for config in tf_configs(worker=2).values()
        ]
        wait_until(lambda: rows_of(folder / "train.csv") > 15, SECONDS, running)
        running[1].process.send_signal(signal.SIGTERM)
        for each in running:
            assert each.wait(60) == 75, each.text()[-4000:]
            assert "saved at step" in each.text()
    saved = rows_of(folder / "train.csv")
    assert (folder / "checkpoints" / f"step-{saved}.index").is_file()
    assert not list(aside.glob("imagenet_worker_*"))


@pytest.mark.slow
def test_workers_that_do_not_wait(data, tmp_path):
    configs = tf_configs(chief=1, ps=1, worker=2)
    arguments = flags(
        data,
        tmp_path / "run",
        "--strategy=parameter_server",
        "--steps_per_loop=10",
        "--checkpoint_every=20",
        optimizer="hierarchical_rnn",
        steps=60,
    )
    with Processes(tmp_path, MODULE) as processes:
        running = {
            key: processes.start(*arguments, tf_config=config)
            for key, config in configs.items()
        }
        assert running["chief", 0].wait(SECONDS) == 0, running["chief", 0].text()[
            -4000:
        ]
    rows = curve(tmp_path / "run")
    assert [row["step"] for row in rows] == [*range(1, 61)]
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-15:]) < np.mean(losses[:15])
    assert read_csv(tmp_path / "run" / "eval.csv")[-1]["images"] == 10


class TestOneProcess:
    """Killed, told to end, and started with mistakes."""

    @pytest.mark.slow
    def test_killed_at_any_moment_it_goes_on_number_for_number(self, data, tmp_path):
        one, two = tmp_path / "one", tmp_path / "two"
        more = ("--checkpoint_every=10", "--steps_per_loop=2")
        kwargs = {"optimizer": "hierarchical_rnn", "steps": 120}
        with Processes(tmp_path, MODULE) as processes:
            run_alone(processes, *flags(data, one, *more, **kwargs))
            killed = processes.start(*flags(data, two, *more, **kwargs))
            wait_until(lambda: rows_of(two / "train.csv") > 35, SECONDS, [killed])
            killed.kill()
            again = run_alone(processes, *flags(data, two, *more, **kwargs))
            assert "resumed from step" in again.text()
        assert_same_run(one, two, exactly=True)

    @pytest.mark.slow
    def test_sigterm_saves_and_says_so(self, data, tmp_path):
        folder = tmp_path / "run"
        arguments = flags(data, folder, steps=100_000)
        with Processes(tmp_path, MODULE) as processes:
            running = processes.start(*arguments)
            wait_until(lambda: rows_of(folder / "train.csv") > 5, SECONDS, [running])
            running.process.send_signal(signal.SIGTERM)
            assert running.wait(60) == 75
            assert "saved at step" in running.text()
            saved = rows_of(folder / "train.csv")
            assert (folder / "checkpoints" / f"step-{saved}.index").is_file()
            # And evaluates what it saved.
            only = processes.start(*arguments, "--eval_only")
            assert only.wait(SECONDS) == 0
            assert f"step {saved}, top_1" in only.text()
        assert rows_of(folder / "train.csv") == saved

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("more", "tf_config", "message"),
        [
            (["--strategy=multi_worker"], None, "variable TF_CONFIG, as"),
            (["--strategy=multi_worker"], "{", "TF_CONFIG must be JSON"),
            (
                ["--strategy=parameter_server"],
                json.dumps({"cluster": {"worker": ["a:1"]}, "task": {}}),
                "parameter_server",
            ),
            (["--strategy=mirrored", "--replicas=3"], None, "multiple of replicas"),
            (["--eval_only"], None, "--eval_only must find a checkpoint"),
        ],
    )
    def test_mistakes(self, data, tmp_path, more, tf_config, message):
        """One line, a status that is not 0, and nothing is overwritten."""
        with Processes(tmp_path, MODULE) as processes:
            running = processes.start(
                *flags(data, tmp_path / "run", *more), tf_config=tf_config
            )
            assert running.wait(120) == 1
        lines = [
            line
            for line in running.text().splitlines()
            if line.startswith("imagenet.train:")
        ]
        assert len(lines) == 1
        assert message in lines[0], running.text()[-2000:]
        assert not (tmp_path / "run").exists()
