"""`REPORT.md`: every experiment's paragraph and figures, with the budget below each.

It follows from the results folder alone, `RESULTS/BUDGET/EXPERIMENT/`, and links to it:
each number is in a CSV file there. If an experiment was run with both budgets, the
report has the full one.
"""

import os
import pathlib
import re

from learned_optimizer.utils.atomic_write import atomic_write
from meta_training.experiments.catalogue import experiment, list_experiments
from meta_training.experiments.experiment import BUDGETS
from meta_training.experiments.runner import PARAGRAPH, read_done, rewrite_paragraph

# Beside the package in a checkout; `imagenet` is not imported.
IMAGENET = pathlib.Path(__file__).parents[2] / "imagenet" / "results" / "README.md"
_IMAGENET = """## Inception V3 and ResNet V2

**What the paper claims, in our words.** The learned optimizer, meta-trained on tiny \
problems, trains Inception V3 and ResNet V2 on ImageNet for thousands of steps, \
problems of a vastly different scale.

**What came out here**, on drawn images, is in [the results of \
imagenet.benchmark]({})."""
# Targets of Markdown links that are files of an experiment's folder.
_LINK = re.compile(r"\]\(([\w.-]+)\)")


def write_report(results: pathlib.Path, path: pathlib.Path) -> list[str]:
    """Writes the report.

    The paragraphs are rewritten from the CSV files, since the text of an experiment may
    have changed.

    Returns:
        The names of the experiments with results in it.
    """
    for name in list_experiments():
        # Of both budgets, so that those not shown are up to date, too.
        for folder in (results / budget / name for budget in BUDGETS):
            if read_done(folder) is not None:
                rewrite_paragraph(experiment(name), folder)
    text, shown = report_text(results, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())
    return shown


def report_text(results: pathlib.Path, base: pathlib.Path) -> tuple[str, list[str]]:
    """The report as Markdown with links relative to `base`, and the names in it."""
    shown, sections, budgets = [], [], set()
    for name in list_experiments():
        found = _best(results, name)
        sections.append(f"## {experiment(name).title}")
        if found is None:
            sections.append(
                "Not run yet: `python -m meta_training.experiments "
                f"{name} --budget=full`."
            )
            continue
        folder, done = found
        shown.append(name)
        budgets.add(done["budget"])
        sections += _section(folder, done, base)
    sections.append(_IMAGENET.format(_relative(IMAGENET, base)))
    return "\n\n".join([*_head(budgets), *sections]) + "\n", shown


def _head(budgets):
    lines = [
        "# The paper's experiments",
        "Written by `python -m meta_training.experiments report` from the results in "
        "the repository. Only the abstract and introduction of the paper and the "
        "released code are known to us: its claims stand here in our words, and none "
        "of its figures. The numbers of an experiment are in the CSV files named with "
        "it; `done.json` beside them has its settings, command and weights.",
        "A log-loss is that of the released code, log(f / (f₀ + 1e-6) + 1e-6), f₀ the "
        "loss at the start: 0 where a run stands still, -13.8 where a task is solved.",
    ]
    if "small" in budgets:
        lines.append(
            "**Budget `small`, where a caption names it, shows that the commands work, "
            "nothing else**: a few tasks, a few steps. What is found with it says "
            "nothing about the optimizer. `--budget=full` makes the figures that count."
        )
    return lines


def _best(results, name):
    """The folder with the largest budget, and what its `done.json` says."""
    for budget in reversed(BUDGETS):
        folder = results / budget / name
        done = read_done(folder)
        if done is not None:
            return folder, done
    return None


def _section(folder, done, base):
    place = _relative(folder, base)
    paragraph = (folder / PARAGRAPH).read_text(encoding="utf-8").strip()
    sections = [_LINK.sub(rf"]({place}/\1)", paragraph)]
    caption = f"{_caption(done)}; `{done['command']}`; [settings]({place}/done.json)."
    title = experiment(done["experiment"]).title
    figures = sorted(folder.glob("*.png"))
    for figure in figures:
        kind = figure.stem.replace("_", " ")
        sections.append(f"![{title}: {kind}]({place}/{figure.name})")
        sections.append(f"*{caption}*")
    if not figures:
        sections.append(f"*{caption}*")
    return sections


def _relative(path, base):
    return pathlib.PurePath(os.path.relpath(path, base)).as_posix()


def _caption(done):
    """How and when an experiment was run, and with which weights, if any."""
    found = experiment(done["experiment"])
    # Earlier versions did not note it.
    least = "" if done.get("seconds_are_all", True) else "at least "
    caption = (
        f"Budget `{done['budget']}`, {least}{_duration(done['seconds'])} on "
        f"{done['cores']} cores, {done['finished']}"
    )
    if found.evaluates_weights:
        name, sha256 = done["weights"]["name"], done["weights"]["sha256"]
        caption += f"; weights `{name}`, sha256 `{sha256[:12]}`"
    return caption


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
