"""The command that compares: its report, and what it refuses at its start."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import read_csv


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
