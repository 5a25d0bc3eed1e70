"""The report of what was measured on a device, made from its CSVs alone."""

import json
import pathlib

import numpy as np

from imagenet.run.config import SETTINGS_FILE
from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.markdown import markdown_table

# Steps over which a loss is the mean.
_WIDTH = 100


def read_rows(path: pathlib.Path) -> list[dict]:
    """The rows of a CSV about networks and optimizers, none where there is no file."""
    return read_csv(path, ("network", "optimizer")) if path.is_file() else []


def write_report(folder: pathlib.Path) -> str:
    """Writes `report.md` into the folder that the stages wrote to; returns its text."""
    sections = ["# On a device, with JAX"]
    for path in sorted(folder.glob(f"*/{SETTINGS_FILE}")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        sections += [
            f"## {path.parent.name}",
            f"{settings['device']}, Keras on JAX; weights {settings['weights']}, "
            f"sha256 {settings['weights_sha256'][:12]}.",
        ]
        write = _steps if path.parent.name == "step" else _runs
        sections += write(path.parent, settings)
    text = "\n\n".join(sections) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.md", text.encode())
    return text


def _steps(folder, settings):
    costs = read_rows(folder / "step.csv")
    if costs:
        yield markdown_table(
            ["network, optimizer", "ms a step", "least ms", "times the least"]
            + ["temporary MB", "state bytes per parameter"],
            [
                [
                    f"{cost['network']}, {cost['optimizer']}",
                    f"{cost['milliseconds']:.2f}",
                    f"{cost['least_milliseconds']:.2f}",
                    f"{cost['milliseconds'] / cost['least_milliseconds']:.2f}",
                    f"{cost['temporary_bytes'] / 1e6:.0f}",
                    f"{cost['state_bytes'] / cost['parameters']:.1f}",
                ]
                for cost in costs
            ],
        )
        yield (
            "The least time reads and writes parameters and state once and reads "
            "gradients, at the bandwidth of a copy on the device, "
            f"{costs[0]['gigabytes_a_second']:.0f} GB/s."
        )
    steps = {(row["network"], row["optimizer"]): row["milliseconds"] for row in costs}
    table = []
    for row in read_rows(folder / "training_step.csv"):
        name, whole = (row["network"], row["optimizer"]), row["milliseconds"]
        share = f"{steps[name] / whole:.1%}" if name in steps else ""
        rate = f"{1e3 * row['batch_size'] / whole:.0f}"
        images = f"{row['batch_size']:.0f}"
        table.append([", ".join(name), images, f"{whole:.1f}", rate, share])
    if table:
        yield markdown_table(
            ["training step", "images", "ms", "images a second", "optimizer's share"],
            table,
        )
        yield f"{settings['image_size']} px, {settings['precision']}."


def _runs(folder, settings):
    marks = sorted({settings["train_steps"] // 4, settings["train_steps"]})
    table = []
    for path in sorted(folder.glob("*/eval.csv")):
        rows, (end,) = read_csv(path.parent / "train.csv"), read_csv(path)
        losses = np.array([row["loss"] for row in rows])
        rate = np.median([row["images_per_second"] for row in rows])
        means = [losses[max(0, mark - _WIDTH) : mark].mean() for mark in marks]
        figures = [*(f"{mean:.4f}" for mean in means), f"{end['top_1']:.2%}"]
        figures += [f"{end['loss']:.4f}", f"{rate:.0f}"]
        table.append([path.parent.name, *figures])
    head = [f"loss at step {mark}" for mark in marks]
    yield markdown_table(
        ["run", *head, "top-1", "validation loss", "images a second"], table
    )
    yield (
        f"{settings['num_images']} images of {settings['image_size']} px drawn in "
        f"{settings['num_classes']} classes, batches of {settings['batch_size']}, "
        f"{settings['precision']}. A loss is the mean training loss of the {_WIDTH} "
        "steps before."
    )
