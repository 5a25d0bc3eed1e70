"""Runs as they are started: processes, several of them, killed and told to end."""

import re
import signal

import keras
import numpy as np
import pytest

from imagenet.input.data import DataConfig, open_images
from learned_optimizer.utils.csv_log import read_csv
from tests.arrays import assert_close
from tests.cluster_processes import Processes, rows_of, tf_configs, wait_until
from tests.imagenet.small_data import loss_of_first
from tests.imagenet.small_runs import SMALL, curve

pytestmark = pytest.mark.slow
NAMES = ("num_classes", "num_images", "num_validation_images", "image_size")
IMAGES = {name: SMALL[name] for name in NAMES}
SECONDS = 240
TWO_WORKERS = "--strategy=multi_worker"
TWO_REPLICAS = ("--strategy=mirrored", "--replicas=2")
AS_ONE = ("--synchronized_batch_normalization", "--input_shards=2")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The flags of a run in a folder."""
    data_dir = tmp_path_factory.mktemp("data")

    def flags_of(folder, *more, model="tiny", optimizer="adam", steps=6):
        common = {"data_dir": data_dir, "batch_size": 8, "steps_per_loop": 2, **IMAGES}
        common |= {"model": model, "optimizer": optimizer, "train_steps": steps}
        common |= {"model_dir": folder}
        return (*(f"--{name}={value}" for name, value in common.items()), *more)

    flags_of.data_dir = str(data_dir)
    return flags_of


@pytest.fixture
def processes(tmp_path):
    with Processes(tmp_path, "tests.imagenet.tiny") as started:
        yield started


def start_two(processes, arguments):
    configs = tf_configs(worker=2).values()
    return [processes.start(*arguments, tf_config=config) for config in configs]


def ended(*running):
    """What the last of them said, after all ended well."""
    for each in running:
        assert each.wait(SECONDS) == 0, each.text()[-4000:]
    return running[-1].text()


def assert_same_run(one, other, exactly=False):
    rtol, atol = (0, 0) if exactly else (2e-4, 2e-5)
    for first, second in zip(curve(one), curve(other), strict=True):
        assert first == pytest.approx(second, rel=rtol, abs=atol)
    first, second = (
        keras.models.load_model(folder / "model.keras").variables
        for folder in (one, other)
    )
    assert_close(first, second, rtol, atol)
    first, second = (read_csv(folder / "eval.csv")[-1] for folder in (one, other))
    assert first == pytest.approx(second, rel=max(rtol, 1e-6))


def test_two_replicas_do_what_one_device_does(flags, processes, tmp_path):
    # A decay so large that it shows if replicas count it twice.
    common = ("--input_shards=1", "--accumulation_steps=2", "--weight_decay=0.1")
    options = dict(optimizer="momentum", model="plain")
    for name, more in (("one", ()), ("two", TWO_REPLICAS)):
        ended(processes.start(*flags(tmp_path / name, *common, *more, **options)))
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_replicas_evaluate_is_what_they_save(flags, processes, tmp_path, workers):
    """Also where each has statistics of its own for its normalizations."""
    folder = tmp_path / "two"
    # Steps enough for replicas without their mean to differ by 1e-4 and more.
    if workers == 2:
        ended(*start_two(processes, flags(folder, TWO_WORKERS, steps=60)))
    else:
        ended(processes.start(*flags(folder, *TWO_REPLICAS, steps=60)))
    # Of the checkpoint, on one device.
    again = ended(processes.start(*flags(folder, "--eval_only", steps=60)))
    row = read_csv(folder / "eval.csv")[-1]
    assert row["images"] == 10
    (restored,) = re.findall(r"\bloss ([0-9.]+), images 10", again)
    # Of which six digits are printed.
    assert float(restored) == pytest.approx(row["loss"], abs=6e-6)
    images = open_images(DataConfig(data_dir=flags.data_dir, **IMAGES))
    loss = loss_of_first(keras.models.load_model(folder / "model.keras"), images, 10)
    assert row["loss"] == pytest.approx(loss, rel=2e-6)


def test_two_workers_of_a_batch_are_one_of_twice_that(flags, processes, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    ended(processes.start(*flags(one, *AS_ONE, optimizer="hierarchical_rnn")))
    arguments = flags(two, *AS_ONE, TWO_WORKERS, optimizer="hierarchical_rnn")
    ended(*start_two(processes, arguments))
    assert_same_run(one, two)


def test_a_lost_worker_is_reported_and_the_run_goes_on(flags, processes, tmp_path):
    """Within a minute, and from the checkpoint with the same numbers."""
    steps = 400
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = flags(two, *AS_ONE, TWO_WORKERS, "--checkpoint_every=20", steps=steps)
    running = start_two(processes, arguments)
    wait_until(lambda: rows_of(two / "train.csv") > 30, SECONDS, running)
    running[1].kill()
    assert running[0].wait(60) == 74
    assert "another process of the run is gone" in running[0].text()
    again = ended(*start_two(processes, arguments))
    resumed = int(re.search(r"resumed from step (\d+)", again)[1])
    ended(processes.start(*flags(one, *AS_ONE, steps=steps)))
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


def test_one_worker_that_is_told_to_end_ends_all(
    flags, processes, tmp_path, monkeypatch
):
    """With one checkpoint, and nothing left of what the others had to write."""
    aside, folder = tmp_path / "aside", tmp_path / "run"
    aside.mkdir()
    monkeypatch.setenv("TMPDIR", str(aside))
    arguments = flags(folder, TWO_WORKERS, "--checkpoint_every=10", steps=100_000)
    running = start_two(processes, arguments)
    wait_until(lambda: rows_of(folder / "train.csv") > 15, SECONDS, running)
    running[1].process.send_signal(signal.SIGTERM)
    for each in running:
        assert each.wait(60) == 75, each.text()[-4000:]
        assert "saved at step" in each.text()
    saved = rows_of(folder / "train.csv")
    assert (folder / "checkpoints" / f"step-{saved}.index").is_file()
    assert not list(aside.glob("imagenet_worker_*"))


def test_workers_that_do_not_wait(flags, processes, tmp_path):
    more = ("--strategy=parameter_server", "--checkpoint_every=20")
    arguments = flags(tmp_path / "run", *more, optimizer="hierarchical_rnn", steps=60)
    running = {
        key: processes.start(*arguments, tf_config=config)
        for key, config in tf_configs(chief=1, ps=1, worker=2).items()
    }
    ended(running["chief", 0])
    rows = curve(tmp_path / "run")
    assert [row["step"] for row in rows] == [*range(1, 61)]
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-15:]) < np.mean(losses[:15])
    assert read_csv(tmp_path / "run" / "eval.csv")[-1]["images"] == 10


def test_killed_at_any_moment_it_goes_on_number_for_number(flags, processes, tmp_path):
    options = dict(optimizer="hierarchical_rnn", steps=120)
    one, two = (
        flags(tmp_path / name, "--checkpoint_every=10", **options)
        for name in ("one", "two")
    )
    ended(processes.start(*one))
    killed = processes.start(*two)
    wait_until(lambda: rows_of(tmp_path / "two/train.csv") > 35, SECONDS, [killed])
    killed.kill()
    assert "resumed from step" in ended(processes.start(*two))
    assert_same_run(tmp_path / "one", tmp_path / "two", exactly=True)


def test_sigterm_saves_and_says_so(flags, processes, tmp_path):
    folder = tmp_path / "run"
    arguments = flags(folder, steps=100_000)
    running = processes.start(*arguments)
    wait_until(lambda: rows_of(folder / "train.csv") > 5, SECONDS, [running])
    running.process.send_signal(signal.SIGTERM)
    assert running.wait(60) == 75
    assert "saved at step" in running.text()
    saved = rows_of(folder / "train.csv")
    assert (folder / "checkpoints" / f"step-{saved}.index").is_file()
    # And evaluates what it saved.
    assert f"step {saved}, top_1" in ended(processes.start(*arguments, "--eval_only"))
    assert rows_of(folder / "train.csv") == saved


def test_a_mistake_is_one_line_and_nothing_is_written(flags, processes, tmp_path):
    replicas = ("--strategy=mirrored", "--replicas=3")
    running = processes.start(*flags(tmp_path / "run", *replicas))
    assert running.wait(120) == 1
    lines = re.findall("^imagenet.train:.*", running.text(), re.MULTILINE)
    assert len(lines) == 1
    assert "multiple of replicas" in lines[0], running.text()[-2000:]
    assert not (tmp_path / "run").exists()
