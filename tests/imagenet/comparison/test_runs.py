"""Comparisons of optimizers: what is run, chosen, and written."""

import subprocess
import sys

import numpy as np
import pytest

from imagenet.comparison import runs as runs_module
from imagenet.comparison.runs import (
    ComparisonConfig,
    Run,
    probe_loss,
    run_all,
    wall_clock,
)
from imagenet.run.config import TRAIN_COLUMNS
from learned_optimizer.utils.csv_log import CsvLog


def plan(folder, **changes):
    settings = {
        "optimizers": ("hierarchical_rnn", "momentum"),
        "factors": (0.5, 1.0, 2.0),
        "probe_steps": 4,
        "train_steps": 8,
        "batch_size": 64,
        "steps_per_epoch": 10.0,
        "flags": ("--dataset=generated",),
        "folder": folder,
    }
    return ComparisonConfig(**settings | changes)


def write_run(folder, run, losses):
    (folder / run.name).mkdir(parents=True, exist_ok=True)
    log = CsvLog(folder / run.name / "train.csv", TRAIN_COLUMNS, 0)
    for step, loss in enumerate(losses, 1):
        row = (step, loss, 0.5, 0.1, 10.0 * step)
        log.write(dict(zip(TRAIN_COLUMNS, row, strict=True)))
    log.close()


def test_baselines_try_rates_and_the_learned_optimizer_none(tmp_path):
    mine = plan(tmp_path)
    learned = mine.candidates("resnet_v2_50", "hierarchical_rnn")
    assert learned == [[Run("resnet_v2_50", "hierarchical_rnn", None, 0)]]
    tried = mine.candidates("resnet_v2_50", "momentum")
    # 0.1 at 256 images.
    rates = [runs[0].learning_rate for runs in tried]
    assert rates == pytest.approx([0.0125, 0.025, 0.05])
    for factor, rate in ((1.0, None), (2.0, 0.05)):
        one = plan(tmp_path, factors=(factor,)).candidates("resnet_v2_50", "momentum")
        assert [runs[0].learning_rate for runs in one] == [rate]


def test_the_best_probe_goes_on(tmp_path, monkeypatch):
    """By the mean loss at its end; one that diverged never."""
    mine = plan(tmp_path, optimizers=("momentum",), seeds=(0, 1))
    # Of two seeds, and what comes after the four steps of a probe. The best over all
    # steps, at the first seed alone, and after the probe is another rate.
    probes = {
        0.0125: ([1, 1, 2.2, 2.2, 2, 2, 2, 2], [1, 1, 2.2, 2.2, 2, 2, 2, 2]),
        0.025: ([9, 9, 2.6, 2.4, 8, 8, 8, 8], [9, 9, 1.4, 1.6, 8, 8, 8, 8]),
        0.05: ([1.0, 1.0, np.nan, np.nan] * 2,) * 2,
    }
    started = []

    def start(command):
        flags = dict(part.split("=") for part in command if part.startswith("--"))
        rate, until = float(flags["--learning_rate"]), int(flags["--stop_after"])
        run = Run("resnet_v2_50", "momentum", rate, int(flags["--seed"]))
        started.append((rate, run.seed, until))
        assert flags["--train_steps"] == "8"
        write_run(tmp_path, run, probes[round(rate, 4)][run.seed][:until])
        (tmp_path / run.name / "checkpoints").mkdir(exist_ok=True)
        if until == 8:
            (tmp_path / run.name / "model.keras").write_bytes(b"")
        return 0, False

    monkeypatch.setattr(runs_module, "_run_child", start)
    runs = run_all(mine)
    assert [(run.learning_rate, run.seed) for run in runs] == [(0.025, 0), (0.025, 1)]
    assert len(started) == 3 * 2 + 2
    assert started[-2:] == [(0.025, 0, 8), (0.025, 1, 8)]
    kept = {path.parent.name for path in tmp_path.glob("*/checkpoints")}
    assert kept == {run.name for run in runs}
    # Nothing is done twice.
    assert run_all(mine) == runs
    assert len(started) == 8
    assert probe_loss(mine, runs) == pytest.approx((2.5 + 1.5) / 2)
    diverged = [Run("resnet_v2_50", "momentum", 0.05, seed) for seed in (0, 1)]
    assert probe_loss(mine, diverged) == np.inf


def test_a_run_that_failed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module, "MODULE", "no_such_module")
    mine = plan(tmp_path, optimizers=("hierarchical_rnn",))
    with pytest.raises(RuntimeError, match="resnet_v2_50_hierarchical_rnn_seed0"):
        run_all(mine)


def test_sigterm_goes_on_to_the_run_and_waits_for_it(tmp_path):
    saved = tmp_path / "saved"
    child = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.5)\n"
        f"    pathlib.Path({str(saved)!r}).touch()\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    script = (
        "import sys\n"
        "from imagenet.comparison.runs import _run_child\n"
        f"print(*_run_child([sys.executable, '-c', {child!r}]), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline() == "started\n"
        parent.terminate()
        assert parent.communicate(timeout=60)[0] == "75 True\n"
    assert saved.exists()


def test_a_comparison_is_not_made_longer(tmp_path):
    """Its rates were chosen under schedules that end at its last step."""
    plan(tmp_path / "new").write_or_verify()
    plan(tmp_path / "new", optimizers=("adam",)).write_or_verify()
    before = (tmp_path / "new" / "comparison.json").read_bytes()
    for steps in (4, 16):
        longer = plan(tmp_path / "new", train_steps=steps)
        for method in (longer.verify, longer.write_or_verify):
            with pytest.raises(ValueError, match=rf"\(8 there, {steps} now\)"):
                method()
    assert (tmp_path / "new" / "comparison.json").read_bytes() == before


def test_the_figures_of_a_run_are_those_of_whole_rows(tmp_path):
    mine = plan(tmp_path)
    run = Run("resnet_v2_50", "hierarchical_rnn", None, 0)
    write_run(tmp_path, run, [2.0, 1.0])
    with open(tmp_path / run.name / "train.csv", "a", encoding="utf-8") as file:
        file.write("3,1.0")
    assert [row["loss"] for row in mine.rows(run)] == [2.0, 1.0]
    # All steps so far: 64 images at 10 and at 20 images a second.
    np.testing.assert_allclose(wall_clock(mine, run), [6.4, 9.6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": ("sgd",)}, "optimizers must be one of"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"factors": (0.0,)}, "factors must be a finite number, above 0"),
        ({"probe_steps": 9}, "at most train_steps. Received: probe_steps=9"),
    ],
)
def test_bad_plans(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, **changes)
