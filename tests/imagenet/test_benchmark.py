"""The command that compares: its report, and what it refuses at its start."""

import json
import re

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import read_csv
from tests.conftest import output_of, run_python


@pytest.mark.slow
def test_the_command_compares_and_reports(tmp_path):
    output = output_of(
        *("-m", "tests.imagenet.tiny_benchmark"),
        *("--models=tiny", "--seeds=3"),
        *("--optimizers=hierarchical_rnn,adam", "--factors=1,10", "--probe_steps=4"),
        *("--train_steps=8", "--num_classes=4", "--num_images=40", "--batch_size=8"),
        *("--num_validation_images=10", "--image_size=32", "--timing_batches=1,8"),
        *(f"--data_dir={tmp_path / 'data'}", f"--output={tmp_path / 'out'}"),
    )
    assert "HierarchicalRNN()" in output
    text = ("model", "optimizer", "weights_sha256")
    rows = read_csv(tmp_path / "out" / "curves.csv", text)
    assert len(rows) == 2 * 8
    learned = [row for row in rows if row["optimizer"] == "hierarchical_rnn"]
    sha256 = load_weights("default").card["sha256"]
    assert {row["weights_sha256"] for row in learned} == {sha256}
    # From the same start and on the same batches: the first loss is the same.
    assert {row["seed"] for row in rows} == {3}
    first = {row["optimizer"]: row["loss"] for row in rows if row["step"] == 1}
    assert first["hierarchical_rnn"] == pytest.approx(first["adam"], rel=1e-5)
    # The curves are those of the runs.
    run = read_csv(tmp_path / "out" / "tiny_hierarchical_rnn_seed3" / "train.csv")
    found = [row["loss"] for row in learned]
    np.testing.assert_allclose(found, [row["loss"] for row in run], rtol=1e-5)
    assert sha256 in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "tiny.png").read_bytes()[:4] == b"\x89PNG"
    times = read_csv(tmp_path / "out" / "timing.csv", ("model", "optimizer"))
    assert [row["batch_size"] for row in times] == [1, 8] * 2
    for row in times:
        gradient, optimizer = row["gradient_seconds"], row["optimizer_seconds"]
        share = optimizer / (gradient + optimizer)
        assert row["optimizer_share"] == pytest.approx(share, rel=1e-3)
        assert row["input_seconds"] > 0
        if row["optimizer"] == "adam":
            # Two moments, and a few counters.
            assert 8 <= row["state_bytes_per_parameter"] < 8.1


# A program in which whatever takes long fails, with several command lines.
CHECKS = """
import json
import sys

from absl import flags
from absl.testing import flagsaver

from imagenet import benchmark


def long(*arguments):
    raise ValueError("the checks were passed")


benchmark.open_images = long
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *arguments])
        try:
            benchmark.main(["program"])
        except SystemExit as left:
            assert left.code == 1
"""


def test_mistakes_end_the_comparison_before_anything_long(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    run = other / "resnet_v2_50_hierarchical_rnn_seed0"
    run.mkdir(parents=True)
    (run / "settings.json").write_text(json.dumps({"weights": "default"}))
    common = ["--data_dir=data", f"--output={out}", "--train_steps=10"]
    cases = [
        ([*common], "the checks were passed"),
        (["--data_dir=data", f"--output={out}"], "--train_steps must be given"),
        ([*common, "--image_size=16"], "32 pixels a side or more"),
        ([*common, "--timing_batches=8,x"], "timing_batches .* Received: 8,x"),
        ([*common, "--timing_batches=0"], "Received: timing_batches=0"),
        ([*common, "--timing_batches="], "the checks were passed"),
        ([*common, "--weights=typo"], "weights='typo'"),
        ([*common, "--weights=typo", "--optimizers=adam"], "the checks were passed"),
        ([*common, "--optimizers=sgd"], "optimizers must be one of"),
        ([*common, "--warmup_steps=11"], "11 steps of 10"),
        ([*common, "--batch_size=0"], "Received: batch_size=0"),
        ([*common, "--seeds=a"], "seeds must be a list.* Received: a"),
        ([*common, f"--output={other}"], "settings of its run.*weights_sha256"),
    ]
    for flag in (
        *("--learning_rate=0.1", "--model=resnet_v2_50", "--optimizer=adam"),
        *("--seed=0", "--model_dir=here", "--stop_after=5", "--epochs=1"),
        "--eval_only",
    ):
        cases.append(([*common, flag], f"Received: {flag.partition('=')[0]}$"))
    done = run_python("-c", CHECKS, json.dumps([arguments for arguments, _ in cases]))
    assert done.returncode == 0, done.stderr[-4000:]
    found = [line for line in done.stderr.splitlines() if line.startswith("imagenet.")]
    for line, (arguments, message) in zip(found, cases, strict=True):
        assert re.search(message, line), (arguments, line)
    assert not out.exists()
