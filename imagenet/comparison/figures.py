"""The pictures of a comparison: loss and accuracy against steps and wall clock."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from imagenet.comparison.runs import ComparisonConfig, Run, wall_clock
from learned_optimizer.utils.figure_limits import shown_limits

COLOURS = {
    "hierarchical_rnn": "#d1495b",
    "rmsprop": "#30638e",
    "adam": "#edae49",
    "adamw": "#8d6a9f",
    "nadamw": "#a0522d",
    "momentum": "#3b7a57",
}
_STYLE = {"font.size": 14, "axes.spines.top": False, "axes.spines.right": False}


def label_of(run: Run) -> str:
    """How a run is called in tables and legends."""
    if run.optimizer == "hierarchical_rnn":
        return "HierarchicalRNN()"
    rate = "usual rate" if run.learning_rate is None else f"{run.learning_rate:.3g}"
    return f"{run.optimizer}, {rate}"


def smoothed(values, width):
    """Means over the last `width` values, over fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_curves(config: ComparisonConfig, model: str, runs: list[Run], footer: str):
    """Loss and accuracy of one network, against steps and against minutes."""
    width = max(1, config.train_steps // 40)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            2, 2, figsize=(13, 9), layout="constrained", sharey="row"
        )
        for run in runs:
            if run.model != model:
                continue
            rows = config.rows(run)
            steps = [row["step"] for row in rows]
            minutes = wall_clock(config, run) / 60
            first = run.seed == config.seeds[0]
            for row, name in enumerate(("loss", "accuracy")):
                values = smoothed([each[name] for each in rows], width)
                for column, where in enumerate((steps, minutes)):
                    axes[row][column].plot(
                        where,
                        values,
                        color=COLOURS[run.optimizer],
                        linewidth=2.5,
                        label=label_of(run) if first else None,
                    )
        shown = [value for line in axes[0][0].lines for value in line.get_ydata()]
        axes[0][0].set(ylabel="training loss", ylim=shown_limits(shown))
        axes[1][0].set(ylabel="training accuracy", xlabel="step")
        axes[1][1].set(xlabel="minutes of wall clock")
        for each in axes.flat:
            each.grid(alpha=0.3)
        axes[0][0].legend(frameon=False)
        figure.suptitle(f"{model}, means over {width} steps")
        figure.supxlabel(footer, fontsize=9)
        # As text, too: a picture is soon parted from its report.
        metadata = {"Description": footer}
        figure.savefig(config.folder / f"{model}.png", dpi=80, metadata=metadata)
        plt.close(figure)
