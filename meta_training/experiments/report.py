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
from meta_training.experiments.runner import PARAGRAPH, paragraph, read_done

# Beside the package in a checkout; `imagenet` is not imported.
IMAGENET = pathlib.Path(__file__).parents[2] / "imagenet" / "results" / "README.md"
_IMAGENET = """## Inception V3 and ResNet V2

**What the paper claims, in our words.** The learned optimizer, meta-trained on tiny \
problems, trains Inception V3 and ResNet V2 on ImageNet for thousands of steps, \
problems of a vastly different scale.

**What came out here**, on drawn images, is in [the results of \
imagenet.benchmark]({})."""
_HEAD = """# The paper's experiments

Written by `python -m meta_training.experiments report` from the results in the \
repository. Only the abstract and introduction of the paper and the released code are \
known to us: its claims stand here in our words, and none of its figures. The numbers \
of an experiment are in the CSV files named with it; `done.json` beside them has its \
settings, command and weights.

A log-loss is that of the released code, log(f / (f₀ + 1e-6) + 1e-6), f₀ the loss at \
the start: 0 where a run stands still, -13.8 where a task is solved."""
_SMALL = """**Budget `small`, where a caption names it, shows that the commands work, \
nothing else**: a few tasks, a few steps. What is found with it says nothing about the \
optimizer. `--budget=full` makes the figures that count."""
# Targets of Markdown links that are files of an experiment's folder.
_LINK = re.compile(r"\]\(([\w.-]+)\)")


def write_report(results: pathlib.Path, path: pathlib.Path) -> list[str]:
    """Writes the report, and the paragraphs of all results anew from their CSV files.

    Returns:
        The names of the experiments with results in it.
    """
    for name in list_experiments():
        # Of both budgets, so that those not shown are up to date, too.
        for folder in (results / budget / name for budget in BUDGETS):
            done = read_done(folder)
            if done is not None:
                text = paragraph(experiment(name), done, folder)
                atomic_write(folder / PARAGRAPH, text.encode())
    text, shown = report_text(results, path.parent)
    atomic_write(path, text.encode())
    return shown


def report_text(results: pathlib.Path, base: pathlib.Path) -> tuple[str, list[str]]:
    """The report as Markdown with links relative to `base`, and the names in it."""
    shown, sections, budgets = [], [], set()
    for name in list_experiments():
        sections.append(f"## {experiment(name).title}")
        # The full budget, if there is one.
        for folder in (results / budget / name for budget in reversed(BUDGETS)):
            done = read_done(folder)
            if done is not None:
                shown.append(name)
                budgets.add(done["budget"])
                sections += _section(experiment(name), folder, done, base)
                break
        else:
            sections.append(
                "Not run yet: `python -m meta_training.experiments "
                f"{name} --budget=full`."
            )
    sections.append(_IMAGENET.format(_relative(IMAGENET, base)))
    head = [_HEAD] + [_SMALL] * ("small" in budgets)
    return "\n\n".join([*head, *sections]) + "\n", shown


def _section(found, folder, done, base):
    place = _relative(folder, base)
    text = paragraph(found, done, folder).strip()
    sections = [_LINK.sub(rf"]({place}/\1)", text)]
    caption = (
        f"*{_caption(found, done)}; `{done['command']}`; "
        f"[settings]({place}/done.json).*"
    )
    figures = sorted(folder.glob("*.png"))
    for figure in figures:
        kind = figure.stem.replace("_", " ")
        sections += [f"![{found.title}: {kind}]({place}/{figure.name})", caption]
    return sections if figures else [*sections, caption]


def _relative(path, base):
    return pathlib.PurePath(os.path.relpath(path, base)).as_posix()


def _caption(found, done):
    """How and when an experiment was run, and with which weights, if any."""
    # Earlier versions did not note it.
    least = "" if done.get("seconds_are_all", True) else "at least "
    seconds = done["seconds"]
    duration = f"{seconds / 3600:.1f} h"
    if seconds < 7200:
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    caption = (
        f"Budget `{done['budget']}`, {least}{duration} on {done['cores']} cores, "
        f"{done['finished']}"
    )
    if found.evaluates_weights:
        name, sha256 = done["weights"]["name"], done["weights"]["sha256"]
        caption += f"; weights `{name}`, sha256 `{sha256[:12]}`"
    return caption
