"""The figures of an evaluation, to be read at the width of a README."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from meta_training.evaluation.comparison import Result
from meta_training.evaluation.statistics import (
    METRICS,
    choices,
    interquartile_mean,
    log_losses,
    progress,
    scores,
    typical_losses,
)

# Up to this number of tasks each has a panel; with more there is one curve of all.
PANELS = 9
_LEARNED_COLOURS = ("#d1495b", "#8f2d56", "#edae49")
# Which settings of the baselines are drawn: few curves, the strongest and the plain.
_DRAWN = (
    ("Adam", "default", "#30638e", "-"),
    ("Adam", "best rate for each task", "#30638e", "--"),
    ("SGD momentum", "best rate for each task", "#6a994e", "--"),
    ("NAdamW", "best rate for each task", "#bc6c25", "--"),
    ("RMSprop", "best rate for each task", "#7d7d7d", ":"),
)


def write_figures(results: Sequence[Result], folder: pathlib.Path) -> list[str]:
    """Writes PNG files.

    Returns:
        Their names, in the order in which a report shows them.
    """
    names = []

    def save(figure, name, labelled=None):
        save_figure(figure, labelled, folder / name)
        names.append(name)

    if len(results[0].tasks) <= PANELS:
        figure = _curves_by_task(results)
        save(figure, "curves.png", figure.axes[0])
    else:
        save(_curve_of_all(results), "curves.png")
        for result in results:
            adam = _named(results, "Adam")
            if result.is_learned and adam is not None:
                save(_differences(result, adam), _file_name("tasks", result))
    for result in results:
        if result.is_learned and len(result.rates) > 1:
            save(_initial_rates(result), _file_name("initial_rates", result))
    return names


def load_pyplot():
    """`matplotlib.pyplot` for files alone, in the looks of all figures here."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'hierarchical-rnn-optimizer[meta]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 11, "axes.spines.top": False})
    pyplot.rcParams.update({"axes.spines.right": False, "legend.frameon": False})
    return pyplot


def subplots(count: int, columns: int = 2, width: float = 5.2, height: float = 3.8):
    """A figure of panels, readable at the width of a README, and their axes.

    Sizes of a panel are in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = load_pyplot().subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def save_figure(figure, labelled, path: pathlib.Path) -> None:
    """Writes a PNG and closes the figure.

    With an axis `labelled` there is one legend for all panels, below them.
    """
    if labelled is not None:
        handles, labels = labelled.get_legend_handles_labels()
        columns = min(3, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    figure.savefig(path, dpi=110)
    load_pyplot().close(figure)


def _file_name(figure, result):
    # Weights may go by their path, which is no part of a file's name.
    label = re.sub(r"[^\w.-]+", "_", result.optimizer).strip("_")
    return f"{figure}_{label}.png"


def _named(results, name):
    return next((result for result in results if result.optimizer == name), None)


def _drawn_settings(results):
    """Yields label, result, `[tasks]` rate indices and the look of a curve."""
    learned = [result for result in results if result.is_learned]
    for number, result in enumerate(learned):
        colour = _LEARNED_COLOURS[number % len(_LEARNED_COLOURS)]
        rates = choices(result, METRICS[1])[0].rates
        yield f"{result.optimizer}, untuned", result, rates, colour, "-"
    for name, setting, colour, style in _DRAWN:
        result = _named(results, name)
        if result is None:
            continue
        choice = next(c for c in choices(result, METRICS[1]) if c.name == setting)
        tuned = "tuned for each task"
        label = f"{result.default_rate:g}" if setting == "default" else tuned
        yield f"{name}, {label}", result, choice.rates, colour, style


def _curves_by_task(results):
    tasks = results[0].tasks
    figure, axes = subplots(len(tasks), columns=3, width=4, height=3.1)
    for label, result, rates, colour, style in _drawn_settings(results):
        typical = typical_losses(result.losses)
        for task, (axis, rate) in enumerate(zip(axes, rates, strict=True)):
            # Step 0 has no place on a logarithmic axis.
            curve = typical[1:, rate, task]
            axis.plot(result.steps[1:], curve, style, color=colour, label=label, lw=1.8)
    for task, axis in zip(tasks, axes, strict=True):
        axis.set(xscale="log", yscale="log", title=task.replace("_", " "))
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("training loss")
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel("step")
        # Below 1e-6 there is nothing to see, and one collapsed curve flattens all.
        axis.set_ylim(bottom=max(axis.get_ylim()[0], 1e-6))
    return figure


def _curve_of_all(results):
    figure, (axis,) = subplots(1, width=7.5, height=4.0)
    for label, result, rates, colour, style in _drawn_settings(results):
        logs = log_losses(result.losses)[:, rates, np.arange(len(rates))]
        curve = [interquartile_mean(record) for record in logs]
        axis.plot(result.steps[1:], curve[1:], style, color=colour, label=label, lw=1.8)
    axis.set(
        xscale="log",
        xlabel="step",
        ylabel="log-loss, interquartile mean",
        title=f"{len(results[0].tasks)} tasks, {results[0].losses.shape[-1]} seeds",
    )
    axis.legend()
    return figure


def _differences(result, adam):
    """Where the learned optimizer wins: a bar a task, sorted."""
    own = choices(result, METRICS[0])[0].scores.mean(axis=1)
    tuned = choices(adam, METRICS[0])[2].scores.mean(axis=1)
    ordered = np.sort(own - tuned)
    figure, (axis,) = subplots(1, width=7.5, height=2.8)
    colours = np.where(ordered <= 0, _LEARNED_COLOURS[0], "#30638e")
    axis.bar(np.arange(len(ordered)), ordered, color=colours, width=0.9)
    axis.set(
        xlabel="tasks, sorted",
        ylabel="difference of mean log-loss",
        title=f"{result.optimizer} minus Adam tuned for each task (below 0: better)",
    )
    return figure


def _initial_rates(result):
    figure, (axis,) = subplots(1, width=7.5, height=3.6)
    if len(result.tasks) <= PANELS:
        final = progress(result).final
        for task, name in enumerate(result.tasks):
            axis.plot(result.rates, final[:, task], "o-", label=name.replace("_", " "))
        axis.set(yscale="log", ylabel=f"training loss after {result.steps[-1]} steps")
        axis.legend(fontsize=9)
    else:
        table = scores(result, METRICS[1])
        axis.plot(result.rates, [interquartile_mean(rate) for rate in table], "o-")
        axis.set_ylabel("final log-loss, interquartile mean")
    axis.set(xscale="log", xlabel="initial learning rate", title=result.optimizer)
    return figure
