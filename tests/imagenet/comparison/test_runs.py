"""Comparisons of optimizers: what is run, chosen, and written."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagenet.comparison.figures import smoothed
from imagenet.comparison.ranking import ranks_of
from imagenet.comparison.report import write_report
from imagenet.comparison.runs import (
    ComparisonConfig,
    Run,
    probe_loss,
    run_all,
    wall_clock,
)
from imagenet.optimizers import resolve
from imagenet.run.columns import EVAL_COLUMNS, TRAIN_COLUMNS
from imagenet.run.step_times import StepTimes
from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import CsvLog, read_csv


def plan(folder, **changes):
    return ComparisonConfig(
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

    monkeypatch.setattr("imagenet.comparison.runs._run_child", start)
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


def test_a_run_that_failed_is_named(tmp_path):
    mine = plan(tmp_path, module="no_such_module", optimizers=("hierarchical_rnn",))
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


def test_what_is_not_surely_below_the_label_counts_against_it():
    """Ties, and what a diverged network says."""
    logits = np.array([[3, 1, 2], [1, 1, 1], [np.nan] * 3, [1, np.nan, 0]])
    assert ranks_of(np.array([2, 0, 0, 0]), logits).tolist() == [1, 2, 2, 1]


def test_a_comparison_is_not_made_longer(tmp_path):
    """Its rates were chosen under schedules that end at its last step."""
    plan(tmp_path / "new").write_or_verify()
    plan(tmp_path / "new", optimizers=("adam",)).write_or_verify()
    before = (tmp_path / "new" / "comparison.json").read_bytes()
    for steps in (4, 16):
        longer = plan(tmp_path / "new", train_steps=steps)
        for method in (longer.verify, longer.write_or_verify):
            with pytest.raises(
                ValueError, match=f"of 8 steps, for train_steps={steps}"
            ):
                method()
    assert (tmp_path / "new" / "comparison.json").read_bytes() == before


def test_a_row_that_was_not_written_whole_does_not_count(tmp_path):
    mine = plan(tmp_path)
    run = Run("resnet_v2_50", "hierarchical_rnn", None, 0)
    write_run(tmp_path, run, [2.0, 1.0])
    with open(tmp_path / run.name / "train.csv", "a", encoding="utf-8") as file:
        file.write("3,1.0")
    assert [row["loss"] for row in mine.rows(run)] == [2.0, 1.0]


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


def test_the_report_names_the_rate_that_was_chosen_and_the_weights_of_the_runs(
    tmp_path,
):
    """Not the usual rate, nor what `default` stands for by now."""
    mine = plan(tmp_path)
    sha256 = "0123456789abcdef" * 4
    learned = Run("resnet_v2_50", "hierarchical_rnn", None, 0)
    tried = mine.candidates("resnet_v2_50", "momentum")
    for (run,), losses in zip(
        [[learned], *tried],
        ([*[2.0] * 7, 1.25], [3.0] * 4, [2.9] * 4, [*[2.5] * 7, 1.5]),
        strict=True,
    ):
        write_run(tmp_path, run, losses)
    runs = [learned, tried[2][0]]
    for run in runs:
        log = CsvLog(tmp_path / run.name / "eval.csv", EVAL_COLUMNS, 0)
        log.write(dict(zip(EVAL_COLUMNS, (8, 0.5, 0.9, 1.0, 10), strict=True)))
        log.close()
    choices = {
        name: resolve(name, batch_size=64, train_steps=8, steps_per_epoch=10.0)
        for name in mine.optimizers
    }
    shares = {
        ("resnet_v2_50", name): [StepTimes(8, 0.5, 0.3, 0.1, 100, 7600)]
        for name in mine.optimizers
    }
    with pytest.raises(ValueError, match="must say which weights it had"):
        write_report(mine, runs, choices, {}, "the command", "Images.")
    (tmp_path / learned.name / "settings.json").write_text(
        json.dumps({"weights": "default-v0", "weights_sha256": sha256})
    )
    text = write_report(mine, runs, choices, shares, "the command", "Images.")
    assert text == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"weights default-v0, sha256 {sha256}" in text
    # The last step of eight; 6.4, 3.2, 2.13 … seconds a step are 17.4 in all.
    assert "| optimizer, rate | loss at step 8 | top-1 | minutes |" in text
    assert "| HierarchicalRNN() | 1.2500 | 50.0% | 0.3 |" in text
    assert "| momentum, 0.05 | 1.5000 | 50.0% | 0.3 |" in text
    assert "0.0125 (3.0000), 0.025 (2.9000), 0.05 (2.5000)" in text
    assert (
        "| resnet_v2_50, momentum | 8 | 500 ms | 300 ms | 100 ms | 25% | 76.0 |" in text
    )
    # 0.1 at 256 images is 0.025 at 64; twice that was best.
    assert "- momentum: rate 0.05, cosine to 0 at step 8" in text
    assert "rate 0.025," not in text
    assert "- HierarchicalRNN(weights='default') (nothing to set)" in text
    with open(tmp_path / "curves.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["optimizer"], row["weights_sha256"]) for row in rows} == {
        ("hierarchical_rnn", sha256),
        ("momentum", ""),
    }
    for name in ("resnet_v2_50.png", "shares.png"):
        with Image.open(tmp_path / name) as picture:
            assert sha256 in picture.text["Description"]
    with open(tmp_path / "timing.csv", encoding="utf-8") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    for row, name in zip(rows, mine.optimizers, strict=True):
        assert row == {
            "model": "resnet_v2_50",
            "optimizer": name,
            "batch_size": "8",
            "input_seconds": "0.5",
            "gradient_seconds": "0.3",
            "optimizer_seconds": "0.1",
            "optimizer_share": "0.25",
            "state_bytes_per_parameter": "76",
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": ("sgd",)}, "optimizers must be one of"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"factors": (0.0,)}, "factors must be a finite number, above 0"),
        ({"probe_steps": 9}, "at most train_steps, 8. Received: probe_steps=9"),
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
    # From the same start and on the same batches: the first loss is the same.
    for seed in ("0", "1"):
        first = {
            row["optimizer"]: float(row["loss"])
            for row in rows
            if (row["step"], row["seed"]) == ("1", seed)
        }
        assert len(first) == 2
        assert first["hierarchical_rnn"] == pytest.approx(first["adam"], rel=1e-5)
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
    for row in times:
        gradient, optimizer = (
            float(row[f"{part}_seconds"]) for part in ("gradient", "optimizer")
        )
        share = optimizer / (gradient + optimizer)
        assert float(row["optimizer_share"]) == pytest.approx(share, rel=1e-3)
        assert float(row["input_seconds"]) > 0
        if row["optimizer"] == "adam":
            # Two moments, and a few counters.
            assert 8 <= float(row["state_bytes_per_parameter"]) < 8.1


# A program in which whatever takes long fails, with several command lines.
CHECKS = """
import json
import sys

from absl import flags
from absl.testing import flagsaver

from imagenet import {program} as program


def long(*arguments):
    raise ValueError("the checks were passed")


program.{long} = long
{before}
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *arguments])
        try:
            program.main(["program"])
        except SystemExit as left:
            assert left.code == 1
"""


def messages(script, cases):
    """What each command line ends with."""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [line for line in done.stderr.splitlines() if line.startswith("imagenet.")]
    assert len(found) == len(cases), done.stderr[-4000:]
    return found


def test_mistakes_end_the_comparison_before_anything_long(tmp_path):
    out = tmp_path / "out"
    other = tmp_path / "other"
    run = other / "resnet_v2_50_hierarchical_rnn_seed0"
    run.mkdir(parents=True)
    (run / "settings.json").write_text(json.dumps({"weights": "default"}))
    common = ["--data_dir=data", f"--output={out}", "--train_steps=10"]
    cases = [
        ([*common], "the checks were passed"),
        (["--data_dir=data", f"--output={out}"], "--train_steps must be given"),
        ([*common, "--image_size=16"], "32 pixels a side or more"),
        ([*common, "--timing_batches=8,x"], "timing_batches .* Received: 'x'"),
        ([*common, "--timing_batches=0"], "timing_batches .* Received: '0'"),
        ([*common, "--timing_batches="], "the checks were passed"),
        ([*common, "--weights=typo"], "weights='typo'"),
        ([*common, "--weights=typo", "--optimizers=adam"], "the checks were passed"),
        ([*common, "--optimizers=sgd"], "optimizers must be one of"),
        ([*common, "--warmup_steps=11"], "11 steps of 10"),
        ([*common, "--batch_size=0"], "Received: batch_size=0"),
        ([*common, "--seeds=a"], "seeds must be a list.* Received: a"),
        ([*common, f"--output={other}"], "settings of its run.*weights_sha256"),
        *(
            ([*common, flag], f"Received: {flag.split('=')[0]}$")
            for flag in (
                *("--learning_rate=0.1", "--model=resnet_v2_50", "--optimizer=adam"),
                *("--seed=0", "--model_dir=here", "--stop_after=5", "--epochs=1"),
                "--eval_only",
            )
        ),
    ]
    script = CHECKS.format(program="benchmark", long="open_images", before="")
    found = messages(script, [arguments for arguments, _ in cases])
    for line, (arguments, message) in zip(found, cases, strict=True):
        assert re.search(message, line), (arguments, line)
    assert not out.exists()
