"""The pictures of a comparison: loss and accuracy against steps and wall clock."""

import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from imagenet.comparison.runs import ComparisonConfig, Run, wall_clock
from imagenet.run.step_times import StepTimes
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


def _save(figure, path, footer):
    """With the footer as text, too: a picture is soon parted from its report."""
    figure.savefig(path, dpi=80, metadata={"Description": footer})
    plt.close(figure)


def plot_curves(
    config: ComparisonConfig,
    model: str,
    runs: list[Run],
    path: pathlib.Path,
    footer: str,
) -> None:
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
            steps = np.array([row["step"] for row in rows])
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
        axes[0][0].set(ylabel="training loss")
        axes[0][0].set_ylim(*shown_limits(shown))
        axes[1][0].set(ylabel="training accuracy", xlabel="step")
        axes[1][1].set(xlabel="minutes of wall clock")
        for each in axes.flat:
            each.grid(alpha=0.3)
        axes[0][0].legend(frameon=False)
        figure.suptitle(f"{model}, means over {width} steps")
        figure.supxlabel(footer, fontsize=9)
        _save(figure, path, footer)


def plot_shares(
    shares: dict[tuple[str, str], list[StepTimes]], path: pathlib.Path, footer: str
) -> None:
    """The optimizer's part of a step as the batch grows."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
        lines = ["-", "--", ":", "-."]
        models = list(dict.fromkeys(model for model, _ in shares))
        for (model, optimizer), times in shares.items():
            axes.plot(
                [each.batch_size for each in times],
                [100 * each.share for each in times],
                color=COLOURS[optimizer],
                linestyle=lines[models.index(model) % len(lines)],
                marker="o",
                linewidth=2.5,
                label=f"{optimizer}, {model}",
            )
        axes.set(
            xscale="log",
            xlabel="images a step",
            ylabel="optimizer, % of a step",
            ylim=(0, None),
        )
        ticks = sorted({t.batch_size for times in shares.values() for t in times})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.supxlabel(footer, fontsize=9)
        _save(figure, path, footer)
