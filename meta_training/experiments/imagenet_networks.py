"""Inception V3 and ResNet V2: the reports that `python -m imagenet.benchmark` wrote."""

import hashlib
import pathlib
import re
import shutil

from meta_training.experiments.experiment import Experiment, register_experiment

# Beside the package in a checkout; `imagenet` is not imported.
RESULTS = pathlib.Path(__file__).parents[2] / "imagenet" / "results"
REPORT = "report.md"
# The networks of the claim, and how the names of their runs begin.
_CLAIMED = {"Inception V3": "inception_v3", "ResNet V2": "resnet_v2"}


@register_experiment
class ImagenetNetworks(Experiment):
    """Collects the reports of the ImageNet package; trains nothing."""

    name = "imagenet"
    title = "Inception V3 and ResNet V2"
    claim = (
        "The learned optimizer, meta-trained on tiny problems, trains Inception V3 and "
        "ResNet V2 on ImageNet for thousands of steps, problems of a vastly different "
        "scale."
    )
    budgets = {"small": {}, "full": {}}
    has_budget = False
    evaluates_weights = False

    def run(self, job):
        for report in _reports():
            name = report.parent.name
            text = report.read_text(encoding="utf-8")
            for figure in report.parent.glob("*.png"):
                shutil.copyfile(figure, job.folder / f"{name}_{figure.name}")
                text = text.replace(f"]({figure.name})", f"]({name}_{figure.name})")
            (job.folder / f"{name}.md").write_text(text, encoding="utf-8")

    def findings(self, folder, settings):
        reports = {
            path.stem: path.read_text(encoding="utf-8")
            for path in sorted(folder.glob("*.md"))
            # The paragraph that this text goes into.
            if path.name != "paragraph.md"
        }
        if not reports:
            return (
                "No results yet: `imagenet/results/` holds no report. `python -m "
                "imagenet.benchmark` makes one (hours; see its `--help`)."
            )
        models = re.findall("^## (.*)$", "\n".join(reports.values()), re.MULTILINE)
        missing = [
            name
            for name, beginning in _CLAIMED.items()
            if not any(model.startswith(beginning) for model in models)
        ]
        parts = [f"No results yet of {' and '.join(missing)}."] if missing else []
        for name, text in reports.items():
            parts.append(f"[{name}]({name}.md): {_conditions(text)}")
            parts += _tables(text)
        return "\n\n".join(parts)

    def describe(self, folder, settings):
        return "reads `imagenet/results/`; trains nothing"

    def inputs(self):
        return {
            path.relative_to(RESULTS).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for report in _reports()
            for path in [report, *sorted(report.parent.glob("*.png"))]
        }


def _reports() -> list[pathlib.Path]:
    """The reports beside which there are training curves."""
    return [
        path
        for path in sorted(RESULTS.glob(f"*/{REPORT}"))
        if any(path.parent.glob("curves.csv*"))
    ]


def _conditions(report: str) -> str:
    """The paragraph of a report that says on which images, and with which weights."""
    before_networks = report.partition("\n## ")[0]
    return " ".join(before_networks.strip().split("\n\n")[-1].split())


def _tables(report: str) -> list[str]:
    """The table of each network, without the sections about anything else."""
    found = []
    for section in report.split("\n## ")[1:]:
        model, _, body = section.partition("\n")
        tables = [part for part in body.split("\n\n") if part.startswith("|")]
        if tables and model.startswith(tuple(_CLAIMED.values())):
            found += [f"`{model}`:", tables[0].strip()]
    return found
