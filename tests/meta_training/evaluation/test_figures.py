"""What the figures of many tasks show."""

import numpy as np

from meta_training.evaluation import figures
from tests.meta_training.evaluation.results_by_hand import many_tasks


def test_figures_of_many_tasks_show_what_was_computed(tmp_path):
    learned, adam, _ = results = many_tasks(12)
    (axis,) = figures._differences(learned, adam).axes
    logs = np.log([0.5, 2.0, 0.6, 0.8])
    own = np.where(np.arange(12) % 3 == 2, logs[1], logs[0])
    tuned = np.where(np.arange(12) < 6, logs[2], logs[3])
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(heights, np.sort(0.75 * (own - tuned)), atol=1e-5)
    (axis,) = figures._curve_of_all(results).axes
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert list(curves) == [
        *("runs/a/weights, untuned", "Adam, 0.001", "Adam, tuned for each task")
    ]
    figures.save_figure(axis.figure, axis, tmp_path / "figure.png")
    texts = axis.figure.legends[0].get_texts()
    assert [text.get_text() for text in texts] == list(curves)
    # The middle half of all tasks.
    np.testing.assert_allclose(
        [curve[-1] for curve in curves.values()],
        [(5 * logs[0] + logs[1]) / 6, logs[3], (logs[2] + logs[3]) / 2],
        atol=1e-5,
    )
