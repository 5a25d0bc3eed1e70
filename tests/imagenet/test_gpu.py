"""All stages on the CPU, with a tiny network and without TensorFlow."""

import json

import numpy as np
import pytest

from learned_optimizer.utils.csv_log import read_csv
from tests.conftest import run_python

pytest.importorskip("jax", reason="JAX is not installed: `make backends`")

# As on a machine that has none: every import of TensorFlow fails.
PROGRAM = """
import sys

sys.modules["tensorflow"] = None
from imagenet import gpu
from tests.imagenet import tiny

gpu.run()
"""
SMALL = (
    *("--model=tiny", "--image_size=32", "--batch_size=8", "--num_classes=4"),
    *("--num_images=48", "--num_validation_images=12", "--precision=float32"),
)


def command(folder, *flags):
    arguments = ("-c", PROGRAM, *SMALL, f"--output={folder}", *flags)
    return run_python(*arguments, JAX_PLATFORMS="cpu")


@pytest.mark.slow
def test_all_stages(tmp_path):
    for stage in ("resnet", "inception", "step"):
        done = command(tmp_path, f"--stage={stage}", "--train_steps=60")
        assert done.returncode == 0, done.stderr[-4000:]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report == done.stdout.removesuffix("\n")
    for stage in ("resnet", "inception"):
        runs = sorted(path.parent for path in (tmp_path / stage).glob("*/eval.csv"))
        optimizers = "hierarchical_rnn", "nadamw_0.001", "nadamw_0.003"
        assert [run.name for run in runs] == [f"tiny_{x}_seed0" for x in optimizers]
        first = []
        for run in runs:
            assert run.name in report
            rows = read_csv(run / "train.csv")
            assert [row["step"] for row in rows] == [*range(1, 61)]
            losses = [row["loss"] for row in rows]
            first.append(losses[0])
            assert np.mean(losses[-10:]) < np.mean(losses[:10])
            # Of this step's eight images.
            right = np.array([row["accuracy"] for row in rows]) * 8
            np.testing.assert_allclose(right, right.round(), atol=1e-5)
            assert len(set(right)) > 2
            (row,) = read_csv(run / "eval.csv")
            assert (row["step"], row["images"], row["top_5"]) == (60, 12, 1)
            assert row["top_1"] * 12 == pytest.approx(round(row["top_1"] * 12))
            assert 0 < row["loss"] < 10
        # From the same start, on the same batches.
        np.testing.assert_allclose(first, first[0], rtol=1e-5)
        # A cosine, after three steps of warm-up.
        rates = [row["learning_rate"] for row in read_csv(runs[2] / "train.csv")]
        assert max(rates) == pytest.approx(0.003) and rates[-1] < 1e-5
    # Started again, nothing is done twice, and other settings are refused.
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    again = command(tmp_path, "--stage=step", "--train_steps=60")
    assert again.returncode == 0 and "tiny, adam" in again.stdout
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == kept
    other = command(tmp_path, "--stage=resnet", "--train_steps=61")
    assert other.returncode == 1
    assert "Received: others for train_steps (60 there, 61 now)" in other.stderr


def test_a_call_ends_with_its_minutes(tmp_path):
    done = command(tmp_path, "--stage=step", "--minutes=1e-6")
    assert done.returncode == 75, done.stderr[-4000:]
    assert "goes on: step.csv: hierarchical_rnn on tiny is left" in done.stderr
    settings = json.loads((tmp_path / "step" / "settings.json").read_text())
    assert settings["model"] == "tiny" and settings["weights_sha256"]
    assert settings["train_steps"] == 1000


def test_mistakes_are_one_line(tmp_path):
    done = command(tmp_path / "out", "--weights=typo")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("imagenet.gpu: ") and "weights='typo'" in last
    assert not (tmp_path / "out").exists()
