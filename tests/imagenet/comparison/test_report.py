"""The report of a comparison."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from imagenet.comparison import report
from imagenet.comparison.report import _mean, shown_limits, write_report
from imagenet.comparison.runs import Run
from imagenet.optimizers import OptimizerSpec
from imagenet.run.config import EVAL_COLUMNS
from learned_optimizer.utils.csv_log import CsvLog, read_csv
from tests.imagenet.comparison.test_runs import plan, write_run


def test_the_report_names_the_rate_that_was_chosen_and_the_weights_of_the_runs(
    tmp_path,
):
    """Not the usual rate, nor what `default` stands for by now."""
    mine = plan(tmp_path)
    sha256 = "0123456789abcdef" * 4
    learned = Run("resnet_v2_50", "hierarchical_rnn", None, 0)
    tried = mine.candidates("resnet_v2_50", "momentum")
    curves = [*[2.0] * 7, 1.25], [3.0] * 4, [2.9] * 4, [*[2.5] * 7, 1.5]
    for (run,), losses in zip([[learned], *tried], curves, strict=True):
        write_run(tmp_path, run, losses)
    runs = [learned, tried[2][0]]
    for run in runs:
        log = CsvLog(tmp_path / run.name / "eval.csv", EVAL_COLUMNS, 0)
        log.write(dict(zip(EVAL_COLUMNS, (8, 0.5, 0.9, 1.0, 10), strict=True)))
        log.close()
    choices = {
        name: OptimizerSpec(name, batch_size=64, train_steps=8, steps_per_epoch=10.0)
        for name in mine.optimizers
    }
    times = {
        "batch_size": 8,
        "input_seconds": 0.5,
        "gradient_seconds": 0.3,
        "optimizer_seconds": 0.1,
        "optimizer_share": 0.25,
        "state_bytes_per_parameter": 76.0,
    }
    shares = {("resnet_v2_50", name): [times] for name in mine.optimizers}
    (tmp_path / learned.name / "settings.json").write_text(
        json.dumps({"weights": "default-v0", "weights_sha256": sha256})
    )
    text = write_report(mine, runs, choices, shares, "the command", "Images.")
    assert text == (tmp_path / "report.md").read_text(encoding="utf-8")
    for words in (
        f"weights default-v0, sha256 {sha256}",
        # The last step of eight; 6.4, 3.2, 2.13 … seconds a step are 17.4 in all.
        "| optimizer, rate | loss at step 8 | top-1 | minutes |",
        "| HierarchicalRNN() | 1.2500 | 50.0% | 0.3 |",
        "| momentum, 0.05 | 1.5000 | 50.0% | 0.3 |",
        "0.0125 (3.0000), 0.025 (2.9000), 0.05 (2.5000)",
        "| resnet_v2_50, momentum | 8 | 500 ms | 300 ms | 100 ms | 25% | 76.0 |",
        # 0.1 at 256 images is 0.025 at 64; twice that was best.
        "- momentum: rate 0.05, cosine to 0 at step 8",
        "- HierarchicalRNN(weights='default') (nothing to set)",
    ):
        assert words in text
    assert "rate 0.025," not in text
    with open(tmp_path / "curves.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["optimizer"], row["weights_sha256"]) for row in rows} == {
        ("hierarchical_rnn", sha256),
        ("momentum", ""),
    }
    with Image.open(tmp_path / "resnet_v2_50.png") as picture:
        assert sha256 in picture.text["Description"]
    found = read_csv(tmp_path / "timing.csv", ("model", "optimizer"))
    assert found == [
        {"model": "resnet_v2_50", "optimizer": name, **times}
        for name in mine.optimizers
    ]


def test_a_mean_over_seeds_says_how_far_they_lie_apart():
    assert _mean([1.25], ".2f") == "1.25"
    assert _mean([1.0, 3.0, 5.0], ".1f") == "3.0 (1.0 to 5.0)"


def test_smoothing_is_the_mean_over_the_last():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(report.smoothed(values, 2), [4.0, 3.0, 4.0, 7.0])


def test_curves_are_those_of_the_runs_of_a_network(tmp_path, monkeypatch):
    """Against steps and minutes; seeds of one optimizer share a label."""
    mine = plan(tmp_path, seeds=(0, 1), train_steps=80)
    runs = [Run("resnet_v2_50", "hierarchical_rnn", None, seed) for seed in (0, 1)]
    runs += [Run("resnet_v2_50", "adam", 0.004, 0)]
    runs += [Run("inception_v3", "adam", None, 0)]
    for number, run in enumerate(runs):
        write_run(tmp_path, run, [4.0 - number, 2.0, 1.0])
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    report.plot_curves(mine, "resnet_v2_50", runs, "footer")
    (figure,) = drawn
    (loss, loss_in_time), (accuracy, _) = np.reshape(figure.axes, (2, 2))
    assert len(loss.lines) == len(accuracy.lines) == 3
    for number, line in enumerate(loss.lines):
        # A fortieth of 80 steps is two; 64 images at 10, 20 and 30 a second.
        first = 4.0 - number
        np.testing.assert_allclose(line.get_ydata(), [first, (first + 2) / 2, 1.5])
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        minutes = np.cumsum([6.4, 3.2, 64 / 30]) / 60
        np.testing.assert_allclose(loss_in_time.lines[number].get_xdata(), minutes)
        np.testing.assert_allclose(accuracy.lines[number].get_ydata(), [0.5] * 3)
        assert line.get_color() == report.COLOURS[runs[number].optimizer]
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["HierarchicalRNN()", "adam, 0.004"]
    assert figure.get_suptitle() == "resnet_v2_50, means over 2 steps"
    assert report.label_of(runs[-1]) == "adam, usual rate"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], (None, None)),
        ([math.inf, math.nan], (None, None)),
        ([3.0, 2.0, 1.0], (None, None)),
        ([*[2.0] * 99, 20.0], (1.99, 2.2)),
        ([*[2.0] * 98, 20.0, math.inf], (1.99, 2.2)),
        # As many as these are no outliers.
        ([*[2.0] * 90, *[20.0] * 10], (None, None)),
    ],
)
def test_a_few_losses_that_fly_off_are_left_out(losses, expected):
    assert shown_limits(losses) == pytest.approx(expected)
