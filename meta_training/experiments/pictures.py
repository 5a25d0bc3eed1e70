"""Figures of experiments, in the style of `evaluation.figures`."""

import pathlib

from meta_training.evaluation.figures import load_pyplot


def subplots(count: int, width: float = 5.2, height: float = 3.8):
    """A figure with panels, two in a row, readable at the width of a README.

    Returns:
        The figure and the axes of the panels.
    """
    columns = min(2, count)
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
    """Writes a PNG with one legend below all panels.

    Args:
        figure: The figure, which is closed.
        labelled: The axis whose labels are in the legend; None: no legend.
        path: The file.
    """
    if labelled is not None:
        handles, labels = labelled.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(3, len(labels))
        )
    figure.savefig(path, dpi=110)
    load_pyplot().close(figure)
