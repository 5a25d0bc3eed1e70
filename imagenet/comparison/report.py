"""The report of a comparison: Markdown, with curves and times as PNG and CSV."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import matplotlib
import numpy as np

from imagenet.comparison.runs import (
    LAST_STEPS,
    ComparisonConfig,
    Run,
    probe_loss,
    wall_clock,
    write_curves,
)
from imagenet.optimizers import OPTIMIZERS, OptimizerSpec
from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv, write_csv
from learned_optimizer.utils.markdown import markdown_table

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_PALETTE = ("#d1495b", "#30638e", "#edae49", "#8d6a9f", "#a0522d", "#3b7a57")
COLOURS = dict(zip(OPTIMIZERS, itertools.cycle(_PALETTE)))
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


def shown_limits(losses: Sequence[float]) -> tuple[float | None, float | None]:
    """From where to where a figure of losses should reach, None: as far as they do.

    An optimizer that flies off for some steps would press all other curves flat. The
    bottom is given with the top, for matplotlib's margin is a part of the whole range.
    """
    finite = sorted(value for value in losses if math.isfinite(value))
    if not finite:
        return None, None
    usual = finite[int(0.95 * (len(finite) - 1))]
    if not finite[-1] > 1.5 * usual > 0:
        return None, None
    top = 1.1 * usual
    return finite[0] - 0.05 * (top - finite[0]), top


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


def write_report(
    config: ComparisonConfig,
    runs: list[Run],
    specs: dict[str, OptimizerSpec],
    shares: dict[tuple[str, str], list[dict[str, float]]],
    command: str,
    data: str,
) -> str:
    """Writes `report.md`, its pictures and CSVs into the folder; returns its text."""
    footer = "; ".join(
        f"HierarchicalRNN: weights {name}, sha256 {sha256}"
        for name, sha256 in dict.fromkeys(map(config.weights_of, runs))
        if sha256
    )
    write_curves(config, runs, config.folder / "curves.csv")
    lines = [
        "# Comparison of optimizers",
        "",
        f"    {command}",
        "",
        f"{data} All optimizers see the same batches from the same start."
        + (f" {footer}." if footer else ""),
        "",
    ]
    for model in config.models:
        plot_curves(config, model, runs, footer)
        lines += [f"## {model}", "", f"![{model}]({model}.png)", ""]
        lines += _losses(config, model, runs)
        lines += _probes(config, model)
    if shares:
        lines += _times(config, shares)
    lines += ["## The optimizers", ""]
    lines += _descriptions(config, runs, specs)
    text = "\n".join(lines) + "\n"
    atomic_write(config.folder / "report.md", text.encode())
    return text


def _descriptions(config, runs, specs):
    """Each optimizer at the rate at which it was run, which was chosen if it was."""
    lines = []
    for optimizer, spec in specs.items():
        rates = {r.model: r.learning_rate for r in runs if r.optimizer == optimizer}
        for rate in dict.fromkeys(rates.values()):
            mine = spec
            if rate is not None:
                mine = dataclasses.replace(spec, learning_rate=rate)
            text = mine.describe()
            if len(set(rates.values())) > 1:
                models = [model for model, each in rates.items() if each == rate]
                text = f"for {', '.join(models)}: {text}"
            lines.append(f"- {text}")
    return lines


def _losses(config, model, runs):
    marks = [step for step in (100, 300, 1000) if step < config.train_steps]
    marks.append(config.train_steps)
    width = min(LAST_STEPS, max(1, config.train_steps // 10))
    head = ["optimizer, rate", *(f"loss at step {mark}" for mark in marks)]
    head += ["top-1", "minutes"]
    table = []
    for optimizer in config.optimizers:
        mine = [r for r in runs if (r.model, r.optimizer) == (model, optimizer)]
        losses = np.array([[row["loss"] for row in config.rows(run)] for run in mine])
        cells = [label_of(mine[0])]
        for mark in marks:
            cells.append(_mean(losses[:, max(0, mark - width) : mark].mean(1), ".4f"))
        ends = [read_csv(config.folder / run.name / "eval.csv")[-1] for run in mine]
        cells.append(_mean([end["top_1"] for end in ends], ".1%"))
        minutes = [wall_clock(config, run)[-1] / 60 for run in mine]
        table.append([*cells, _mean(minutes, ".1f")])
    return [
        markdown_table(head, table),
        "",
        f"A loss is the mean training loss of the {width} steps before; top-1 is of "
        "the validation images, at the end. "
        f"Seeds: {', '.join(map(str, config.seeds))}.",
        "",
    ]


def _probes(config, model):
    """What was tried: the losses by which rates were chosen."""
    lines = []
    for optimizer in config.optimizers:
        candidates = config.candidates(model, optimizer)
        tried = ", ".join(
            f"{runs[0].learning_rate:.3g} ({probe_loss(config, runs):.4f})"
            for runs in candidates
            if len(candidates) > 1
        )
        lines += [f"- {optimizer}: {tried}"] if tried else []
    what = f"Rates tried for {config.probe_steps} steps, with the mean loss at their "
    return [f"{what}end:", "", *lines, ""] if lines else []


def _times(config, shares):
    rows = [
        {"model": model, "optimizer": optimizer, **times}
        for (model, optimizer), found in shares.items()
        for times in found
    ]
    write_csv(config.folder / "timing.csv", rows[0], [row.values() for row in rows])
    head = ["network, optimizer", "batch", "input", "forward, backward", "optimizer"]
    parts = [f"{part}_seconds" for part in ("input", "gradient", "optimizer")]
    table = [
        [
            f"{row['model']}, {row['optimizer']}",
            str(row["batch_size"]),
            *(f"{1e3 * row[part]:.0f} ms" for part in parts),
            f"{row['optimizer_share']:.0%}",
            f"{row['state_bytes_per_parameter']:.1f}",
        ]
        for row in rows
    ]
    return [
        "## The time of a step",
        "",
        markdown_table([*head, "share", "state bytes per parameter"], table),
        "",
        "Medians of each part by itself, on this machine; the input is that of a "
        "pipeline that is asked for nothing else.",
        "",
    ]


def _mean(values, form):
    """The mean over seeds, and the range where there are several."""
    text = format(float(np.mean(values)), form)
    if len(values) > 1:
        low, high = (format(float(f(values)), form) for f in (np.min, np.max))
        text += f" ({low} to {high})"
    return text
