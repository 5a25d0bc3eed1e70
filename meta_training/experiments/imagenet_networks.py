"""Inception V3 and ResNet V2, from the curves that `imagenet.benchmark` left.

Which images they were trained on stands in the `settings.json` of the runs beside each
file of curves. All runs of a comparison see the same images, so one that kept its
settings speaks for all of its network. Comparisons on the same images share a panel of
the figure; a run under another schedule than its optimizer's usual one says so.
"""

import csv
import hashlib
import json
import pathlib
import textwrap
from collections.abc import Mapping

import numpy as np

from learned_optimizer.utils.csv_log import open_csv
from learned_optimizer.utils.figure_limits import shown_limits
from meta_training.evaluation.report import markdown_table
from meta_training.experiments.evaluated import link, read_csv, write_csv
from meta_training.experiments.pictures import save_figure, subplots
from meta_training.experiments.registry import Experiment, register_experiment

ROOT = pathlib.Path(__file__).parents[2]
# Beside the package in a checkout; `imagenet` is not imported.
RESULTS = ROOT / "imagenet" / "results"
COLUMNS = (
    "model",
    "optimizer",
    "learning_rate",
    "seed",
    "step",
    "seconds",
    "loss",
    "accuracy",
    "weights_sha256",
)
# A run is judged by its last steps; curves are means over so many points of a run.
LAST_STEPS = 100
POINTS = 100
# Letters in a line of a panel's title.
TITLE_WIDTH = 45
# What stands in for a rate in a run that names none.
_NO_RATE = {"hierarchical_rnn": "none to set"}
# What a run's settings say of its images.
IMAGES = ("dataset", "image_size", "num_classes", "num_images", "batch_size")
_TEXT = (
    *("source", "model", "optimizer", "learning_rate", "seed", "weights_sha256"),
    *("schedule", *IMAGES),
)
# Of the learning rate, as `--schedule` of `imagenet` names it.
USUAL = "usual"
_SCHEDULES = {"cosine": "half a cosine to 0", "constant": "constant"}
# The networks of the claim, and how the names of their runs begin.
_CLAIMED = {"Inception V3": "inception_v3", "ResNet V2": "resnet_v2"}
_DATASETS = {
    "generated": "generated images (drawn by a program, not ImageNet)",
    "imagenet2012": "ImageNet",
}
_COLOURS = {
    "hierarchical_rnn": "#d1495b",
    "adam": "#30638e",
    "rmsprop": "#7d7d7d",
    "momentum": "#6a994e",
    "adamw": "#edae49",
}


@register_experiment
class ImagenetNetworks(Experiment):
    """Reads the results of the ImageNet package; trains nothing."""

    name = "imagenet"
    title = "Inception V3 and ResNet V2"
    claim = (
        "The learned optimizer, meta-trained on tiny problems, trains Inception V3 and "
        "ResNet V2 on ImageNet for thousands of steps, problems of a vastly different "
        "scale."
    )
    budgets = {"small": {}, "full": {}}
    has_budget = False
    judges_weights = False

    def run(self, job):
        runs, curves = [], []
        for path in _files():
            source = path.relative_to(RESULTS).as_posix().removesuffix(".xz")
            settings = _settings_of(path.parent)
            images = _images_of(path.parent, settings)
            schedules = {
                (each["model"], each.get("optimizer")): each.get("schedule", USUAL)
                for each in settings
            }
            for key, rows in _runs_of(path).items():
                loss = np.array([row["loss"] for row in rows])
                last = loss[-LAST_STEPS:]
                schedule = schedules.get(key[:2], USUAL)
                runs.append(
                    [source, *key[:-1], len(loss), last.mean(), rows[-1]["seconds"]]
                    + [key[-1], schedule, *images.get(key[0], [""] * len(IMAGES))]
                )
                for part in np.array_split(
                    np.arange(len(rows)), min(POINTS, len(rows))
                ):
                    middle = [
                        np.mean([rows[i][name] for i in part]) for name in _NUMBERS
                    ]
                    curves.append([source, *key[:-1], *middle])
        write_csv(job.folder / "runs.csv", _RUN_COLUMNS, runs)
        write_csv(job.folder / "curves.csv", _CURVE_COLUMNS, curves)
        if runs:
            _draw(job.folder)
        else:
            job.log(f"{RESULTS.parent.name}/{RESULTS.name} has no curves.csv")

    def findings(self, folder, settings):
        runs = read_csv(folder / "runs.csv", _TEXT)
        if not runs:
            return (
                "Nothing has been run yet: `imagenet/results/` holds no `curves.csv`. "
                "`python -m imagenet.benchmark` makes one (hours; see its `--help`); "
                "then this experiment reads it."
            )
        rows = []
        for source, model, optimizer, rate in dict.fromkeys(
            (run["source"], run["model"], run["optimizer"], run["learning_rate"])
            for run in runs
        ):
            own = [
                run
                for run in runs
                if (run["source"], run["model"], run["optimizer"])
                == (source, model, optimizer)
                and run["learning_rate"] == rate
            ]
            losses = [run["mean_loss_of_last_steps"] for run in own]
            rows.append(
                [
                    source,
                    model,
                    optimizer,
                    _rate_in_words(own[0]),
                    str(len(own)),
                    f"{min(run['steps'] for run in own):.0f}",
                    f"{np.mean(losses):.4g}",
                ]
            )
        header = [
            "results",
            "network",
            "optimizer",
            "rate",
            "seeds",
            "steps",
            f"mean loss of the last {LAST_STEPS} steps",
        ]
        weights = sorted({run["weights_sha256"] for run in runs} - {""})
        return (
            f"{_on_which_images(runs)} {_not_yet(runs)}Training losses as "
            "`imagenet.benchmark` wrote them; commands are in the report beside each "
            "file. Weights of the learned optimizer: sha256 "
            f"{', '.join(weights) or 'unknown'}.\n\n"
            + markdown_table(header, rows)
            + f"\n\nNumbers: {link(folder, 'runs.csv', 'curves.csv')}."
        )

    def describe(self, folder, settings):
        return "reads `imagenet/results/`, whatever was computed for it; trains nothing"

    def inputs(self):
        return {
            path.relative_to(RESULTS).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for file in _files()
            for path in [file, *_settings_files(file.parent)]
        }


_NUMBERS = ("step", "seconds", "loss", "accuracy")
_RUN_COLUMNS = (
    *("source", "model", "optimizer", "learning_rate", "seed", "steps"),
    *("mean_loss_of_last_steps", "seconds", "weights_sha256", "schedule", *IMAGES),
)
_RUN_NAMES = ("source", *COLUMNS[:4])
_CURVE_COLUMNS = (*_RUN_NAMES, *_NUMBERS)


def _files() -> list[pathlib.Path]:
    return sorted([*RESULTS.rglob("curves.csv"), *RESULTS.rglob("curves.csv.xz")])


def _settings_files(folder) -> list[pathlib.Path]:
    return sorted(folder.glob("*/settings.json"))


def _settings_of(folder) -> list[dict]:
    """The settings that runs of a comparison kept."""
    return [
        json.loads(path.read_text(encoding="utf-8")) for path in _settings_files(folder)
    ]


def _images_of(folder, settings) -> dict[str, list[str]]:
    """The images of each network of a comparison, as texts in the order of `IMAGES`.

    Raises:
        ValueError: Runs of one network had different ones.
    """
    found: dict[str, list[str]] = {}
    for each in settings:
        values = [each.get(name) for name in IMAGES]
        images = ["" if value is None else str(value) for value in values]
        if found.setdefault(each["model"], images) != images:
            raise ValueError(
                f"the runs of {each['model']} in {folder.relative_to(RESULTS)} "
                f"must have the same images. Received: {found[each['model']]} and "
                f"{images}"
            )
    return found


def _rate_in_words(run: Mapping[str, str]) -> str:
    """The rate of a run, and its schedule if that is not the usual one."""
    optimizer = run["optimizer"]
    rate = run["learning_rate"] or _NO_RATE.get(optimizer, "its usual")
    schedule = run["schedule"]
    return (
        rate if schedule == USUAL else f"{rate}; {_SCHEDULES.get(schedule, schedule)}"
    )


def _images_in_words(run: Mapping[str, str], dataset: str) -> str:
    """Which dataset, and how many pixels, classes and images of it."""
    words = [dataset]
    for name, unit in (
        ("image_size", "px"),
        ("num_classes", "classes"),
        ("num_images", "for training"),
    ):
        if run.get(name):
            words.append(f"{int(run[name]):,} {unit}")
    if run.get("batch_size"):
        words.append(f"batches of {run['batch_size']}")
    return ", ".join(words)


def _on_which_images(runs) -> str:
    """A sentence for each file of curves and its images."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        name = run.get("dataset", "")
        images = _images_in_words(run, _DATASETS.get(name, name))
        if not name:
            images = "images that no settings beside the curves name"
        models = found.setdefault((run["source"], images), [])
        if run["model"] not in models:
            models.append(run["model"])
    return " ".join(
        f"`{source}`: {', '.join(models)} on {images}."
        for (source, images), models in found.items()
    )


def _not_yet(runs) -> str:
    """The networks of the claim that no run is of."""
    missing = [
        name
        for name, beginning in _CLAIMED.items()
        if not any(run["model"].startswith(beginning) for run in runs)
    ]
    return f"No results yet of {' and '.join(missing)}. " if missing else ""


def _runs_of(path) -> dict[tuple, list[dict]]:
    """The rows of each run of a file, in the order of steps.

    Raises:
        ValueError: The columns are not those of `imagenet.benchmark`.
    """
    with open_csv(path) as file:
        header = next(csv.reader(file), [])
    if tuple(header) != COLUMNS:
        raise ValueError(
            f"{path.relative_to(RESULTS)} must have the columns {', '.join(COLUMNS)}. "
            f"Received: {', '.join(header)}"
        )
    found: dict[tuple, list[dict]] = {}
    for row in read_csv(path, _TEXT):
        key = tuple(row[name] for name in (*COLUMNS[:4], COLUMNS[-1]))
        found.setdefault(key, []).append(row)
    return found


def _draw(folder):
    """Loss against steps: a panel a network and its images, which are in the title."""
    curves = read_csv(folder / "curves.csv", _TEXT)
    runs = read_csv(folder / "runs.csv", _TEXT)
    panels: dict[tuple, list[dict]] = {}
    for run in runs:
        images = [run[name] for name in IMAGES]
        # Those that nothing names may be any.
        alike = images if any(images) else [run["source"]]
        panels.setdefault((run["model"], *alike), []).append(run)
    figure, axes = subplots(len(panels))
    for axis, shown in zip(axes, panels.values(), strict=True):
        labels = set()
        losses = []
        for run in shown:
            own = [
                row
                for row in curves
                if all(row[name] == run[name] for name in _RUN_NAMES)
            ]
            losses += [row["loss"] for row in own]
            label = run["optimizer"].replace("_", " ")
            if run["schedule"] != USUAL:
                label += f", {run['schedule']}"
            axis.plot(
                [row["step"] for row in own],
                [row["loss"] for row in own],
                color=_COLOURS.get(run["optimizer"]),
                linestyle="-" if run["schedule"] == USUAL else "--",
                label=None if label in labels else label,
                lw=1.6,
            )
            labels.add(label)
        run = shown[0]
        dataset = f"{run['dataset'] or 'unknown'} images"
        axis.set_title(
            run["model"].replace("_", " ")
            + "\n"
            + textwrap.fill(_images_in_words(run, dataset), TITLE_WIDTH),
            fontsize="small",
        )
        axis.set_xlabel("step")
        axis.set_ylabel("training loss")
        axis.set_ylim(*shown_limits(losses))
    # The panel with the most optimizers names those of all.
    fullest = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    save_figure(figure, fullest, folder / "curves.png")
