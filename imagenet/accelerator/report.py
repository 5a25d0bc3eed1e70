"""The report of what was measured on a device, made from its CSVs alone."""

import json
import pathlib

import numpy as np

from imagenet.accelerator.rows import read_rows
from imagenet.accelerator.step_cost import StepCost
from imagenet.comparison.report import table_head, table_row
from imagenet.run.config import SETTINGS_FILE
from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv

# Steps over which a loss is the mean.
_WIDTH = 100


def write_report(folder: pathlib.Path) -> str:
    """Writes `report.md` into the folder that the stages wrote to; returns its text."""
    lines = ["# On a device, with JAX", ""]
    for path in sorted(folder.glob(f"*/{SETTINGS_FILE}")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            f"## {path.parent.name}",
            "",
            f"{settings['device']}, Keras on JAX; weights {settings['weights']}, "
            f"sha256 {settings['weights_sha256'][:12]}.",
            "",
        ]
        if path.parent.name == "step":
            lines += _steps(path.parent)
        else:
            lines += _runs(path.parent, settings)
    text = "\n".join(lines)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.md", text.encode())
    return text


def _steps(folder):
    costs = [StepCost.from_row(row) for row in read_rows(folder / "step.csv")]
    lines = table_head(
        ["network, optimizer", "ms a step", "least ms", "times the least"]
        + ["temporary MB", "state bytes per parameter"]
    )
    for cost in costs:
        lines.append(
            table_row(
                [
                    f"{cost.network}, {cost.optimizer}",
                    f"{cost.milliseconds:.2f}",
                    f"{cost.least_milliseconds:.2f}",
                    f"{cost.milliseconds / cost.least_milliseconds:.2f}",
                    f"{cost.temporary_bytes / 1e6:.0f}",
                    f"{cost.state_bytes / cost.parameters:.1f}",
                ]
            )
        )
    lines += [
        "",
        "The least time reads and writes parameters and state once and reads "
        "gradients, at the bandwidth of a copy on the device"
        + (f", {costs[0].gigabytes_a_second:.0f} GB/s." if costs else "."),
        "",
    ]
    path = folder / "training_step.csv"
    steps = {(c.network, c.optimizer): c.milliseconds for c in costs}
    rows = read_rows(path)
    if rows:
        lines += table_head(
            ["training step", "images", "ms", "images a second", "optimizer's share"]
        )
    for row in rows:
        whole, own = float(row["milliseconds"]), (row["network"], row["optimizer"])
        share = f"{steps[own] / whole:.1%}" if own in steps else ""
        images = int(row["batch_size"])
        rate = f"{1e3 * images / whole:.0f}"
        lines.append(
            table_row([", ".join(own), str(images), f"{whole:.1f}", rate, share])
        )
    return [*lines, ""]


def _runs(folder, settings):
    marks = sorted({settings["train_steps"] // 4, settings["train_steps"]})
    head = [f"loss at step {mark}" for mark in marks]
    lines = table_head(["run", *head, "top-1", "validation loss", "images a second"])
    for path in sorted(folder.glob("*/eval.csv")):
        rows, (end,) = read_csv(path.parent / "train.csv"), read_csv(path)
        losses = np.array([row["loss"] for row in rows])
        rate = np.median([row["images_per_second"] for row in rows])
        cells = [path.parent.name]
        cells += [f"{losses[max(0, m - _WIDTH) : m].mean():.4f}" for m in marks]
        cells += [f"{end['top_1']:.2%}", f"{end['loss']:.4f}", f"{rate:.0f}"]
        lines.append(table_row(cells))
    return [
        *lines,
        "",
        f"{settings['num_images']} images of {settings['image_size']} px drawn in "
        f"{settings['num_classes']} classes, batches of {settings['batch_size']}, "
        f"{settings['precision']}. A loss is the mean training loss of the {_WIDTH} "
        "steps before.",
        "",
    ]
