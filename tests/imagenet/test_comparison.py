"""Comparisons of optimizers: what is run, chosen, and written."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from imagenet.columns import TRAIN_COLUMNS
from imagenet.comparison import Plan, Run, probe_loss, run_all, wall_clock
from imagenet.figures import smoothed
from imagenet.step_times import StepTimes
from learned_optimizer import load_weights
from meta_training.csv_log import CsvLog, read_csv


def plan(folder, **changes):
    return Plan(
        **{
            "models": ("resnet_v2_50",),
            "optimizers": ("hierarchical_rnn", "momentum"),
            "seeds": (0,),
            "factors": (0.5, 1.0, 2.0),
            "probe_steps": 4,
            "train_steps": 8,
            "batch_size": 64,
            "steps_per_epoch": 10.0,
            "flags": ("--dataset=generated",),
            "folder": folder,
            **changes,
        }
    )


def write_run(folder, run, losses, rate=10.0):
    (folder / run.name).mkdir(parents=True, exist_ok=True)
    log = CsvLog(folder / run.name / "train.csv", TRAIN_COLUMNS, 0)
    for step, loss in enumerate(losses, 1):
        log.write(
            dict(zip(TRAIN_COLUMNS, (step, loss, 0.5, 0.1, rate * step), strict=True))
        )
    log.close()


def test_baselines_try_rates_and_the_learned_optimizer_none(tmp_path):
    mine = plan(tmp_path)
    learned = mine.candidates("resnet_v2_50", "hierarchical_rnn")
    assert learned == [[Run("resnet_v2_50", "hierarchical_rnn", None, 0)]]
    tried = mine.candidates("resnet_v2_50", "momentum")
    # 0.1 at 256 images.
    rates = [runs[0].learning_rate for runs in tried]
    assert rates == pytest.approx([0.0125, 0.025, 0.05])
    one = plan(tmp_path, factors=(1.0,)).candidates("resnet_v2_50", "momentum")
    assert [runs[0].learning_rate for runs in one] == [None]


def test_the_best_probe_goes_on(tmp_path, monkeypatch):
    """By the mean loss at its end; one that diverged never."""
    mine = plan(tmp_path, optimizers=("momentum",), seeds=(0, 1))
    probes = {0.0125: [3.0] * 4, 0.025: [2.9] * 4, 0.05: [1.0, 1.0, np.nan, np.nan]}
    started = []

    def start(command, check):
        del check
        flags = dict(part.split("=") for part in command if part.startswith("--"))
        rate, until = float(flags["--learning_rate"]), int(flags["--stop_after"])
        run = Run("resnet_v2_50", "momentum", rate, int(flags["--seed"]))
        started.append((rate, run.seed, until))
        assert flags["--train_steps"] == "8"
        write_run(tmp_path, run, (probes[round(rate, 4)] * 2)[:until])
        (tmp_path / run.name / "checkpoints").mkdir(exist_ok=True)
        if until == 8:
            (tmp_path / run.name / "model.keras").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("imagenet.comparison.subprocess.run", start)
    runs = run_all(mine)
    assert [(run.learning_rate, run.seed) for run in runs] == [(0.025, 0), (0.025, 1)]
    assert len(started) == 3 * 2 + 2
    assert started[-2:] == [(0.025, 0, 8), (0.025, 1, 8)]
    kept = {path.parent.name for path in tmp_path.glob("*/checkpoints")}
    assert kept == {run.name for run in runs}
    # Nothing is done twice.
    assert run_all(mine) == runs
    assert len(started) == 8
    diverged = [Run("resnet_v2_50", "momentum", 0.05, seed) for seed in (0, 1)]
    assert probe_loss(mine, diverged) == np.inf


def test_a_run_that_failed_is_named(tmp_path):
    mine = plan(tmp_path, module="no_such_module", optimizers=("hierarchical_rnn",))
    with pytest.raises(RuntimeError, match="resnet_v2_50_hierarchical_rnn_seed0"):
        run_all(mine)


def test_the_wall_clock_is_that_of_all_steps_so_far(tmp_path):
    mine = plan(tmp_path)
    run = Run("resnet_v2_50", "hierarchical_rnn", None, 0)
    write_run(tmp_path, run, [2.0, 1.0])
    # 64 images at 10 and at 20 images a second.
    np.testing.assert_allclose(wall_clock(mine, run), [6.4, 9.6])


def test_smoothing_is_the_mean_over_the_last():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(smoothed(values, 2), [4.0, 3.0, 4.0, 7.0])


def test_the_share_is_that_of_gradients_and_optimizer():
    times = StepTimes(8, 0.5, 0.3, 0.1, 100, 7600)
    assert times.share == pytest.approx(0.25)
    assert times.state_bytes_per_parameter == 76


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": ("sgd",)}, "optimizers must be of"),
        ({"seeds": ()}, "needs models, optimizers, seeds and factors"),
        ({"factors": (0.0,)}, "factors must be positive"),
        ({"probe_steps": 9}, "9 of 8"),
    ],
)
def test_bad_plans(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, **changes)


def command(module, *flags):
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
    )


@pytest.mark.slow
def test_the_command_compares_and_reports(tmp_path):
    done = command(
        "tests.imagenet.tiny_benchmark",
        *("--module=tests.imagenet.tiny", "--models=tiny", "--seeds=0,1"),
        *("--optimizers=hierarchical_rnn,adam", "--factors=1,10", "--probe_steps=4"),
        *("--train_steps=8", "--num_classes=4", "--num_images=40", "--batch_size=8"),
        *("--num_validation_images=10", "--image_size=32", "--timing_batches=1,8"),
        *(f"--data_dir={tmp_path / 'data'}", f"--output={tmp_path / 'out'}"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "HierarchicalRNN()" in done.stdout
    with open(tmp_path / "out" / "curves.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 8
    learned = [row for row in rows if row["optimizer"] == "hierarchical_rnn"]
    sha256 = load_weights("default").card["sha256"]
    assert {row["weights_sha256"] for row in learned} == {sha256}
    # The curves are those of the runs.
    run = read_csv(tmp_path / "out" / "tiny_hierarchical_rnn_seed1" / "train.csv")
    found = [float(row["loss"]) for row in learned if row["seed"] == "1"]
    np.testing.assert_allclose(found, [row["loss"] for row in run], rtol=1e-5)
    assert sha256 in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for name in ("tiny.png", "shares.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    with open(tmp_path / "out" / "timing.csv", encoding="utf-8") as file:
        times = list(csv.DictReader(file))
    assert [row["batch_size"] for row in times] == ["1", "8"] * 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models=resnet_v2_50", "--image_size=16"], "32 pixels a side or more"),
        (["--models=resnet_v2_50"], "needs --train_steps"),
    ],
)
def test_mistakes_end_the_command(tmp_path, flags, message):
    done = command(
        "imagenet.benchmark",
        *flags,
        f"--data_dir={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


class TestJax:
    """`model.fit` without TensorFlow."""

    @pytest.mark.slow
    def test_it_trains_and_reports(self, tmp_path):
        pytest.importorskip("jax", reason="JAX is not installed: `make backends`")
        # As on a machine that has none: every import of it fails.
        script = (
            "import sys\n"
            "sys.modules['tensorflow'] = None\n"
            "from imagenet import fit_jax\n"
            "from tests.imagenet import tiny\n"
            "fit_jax.run()\n"
        )
        done = subprocess.run(
            [
                *(sys.executable, "-c", script, "--model=tiny", "--image_size=32"),
                *("--num_classes=4", "--num_images=48", "--num_validation_images=12"),
                *("--batch_size=8", "--train_steps=60", "--timing_batches=1,8"),
                *("--optimizers=hierarchical_rnn,adam", f"--output={tmp_path}"),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        for optimizer in ("hierarchical_rnn", "adam"):
            rows = read_csv(tmp_path / f"tiny_{optimizer}_seed0" / "train.csv")
            assert [row["step"] for row in rows] == [*range(1, 61)]
            losses = [row["loss"] for row in rows]
            assert np.mean(losses[-10:]) < np.mean(losses[:10])
        assert (tmp_path / "tiny.png").is_file()
        assert "shares.png" in (tmp_path / "report.md").read_text(encoding="utf-8")
