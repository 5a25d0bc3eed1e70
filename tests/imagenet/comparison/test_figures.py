"""What the curves of a figure show."""

import numpy as np

from imagenet.comparison import figures
from imagenet.comparison.runs import Run
from tests.imagenet.comparison.test_runs import plan, write_run


def test_smoothing_is_the_mean_over_the_last():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(figures.smoothed(values, 2), [4.0, 3.0, 4.0, 7.0])


def test_curves_are_those_of_the_runs_of_a_network(tmp_path, monkeypatch):
    """Against steps and minutes; seeds of one optimizer share a label."""
    mine = plan(tmp_path, seeds=(0, 1), train_steps=80)
    runs = [Run("resnet_v2_50", "hierarchical_rnn", None, seed) for seed in (0, 1)]
    runs += [Run("resnet_v2_50", "adam", 0.004, 0)]
    runs += [Run("inception_v3", "adam", None, 0)]
    for number, run in enumerate(runs):
        write_run(tmp_path, run, [4.0 - number, 2.0, 1.0])
    drawn = []
    monkeypatch.setattr(figures.plt, "close", drawn.append)
    figures.plot_curves(mine, "resnet_v2_50", runs, "footer")
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
        assert line.get_color() == figures.COLOURS[runs[number].optimizer]
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["HierarchicalRNN()", "adam, 0.004"]
    assert figure.get_suptitle() == "resnet_v2_50, means over 2 steps"
    assert figures.label_of(runs[-1]) == "adam, usual rate"
