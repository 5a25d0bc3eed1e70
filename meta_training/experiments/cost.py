"""Time and memory of a step against batch size and parameters, compared with Adam."""

from learned_optimizer.benchmark import WAYS, measure
from learned_optimizer.utils.csv_log import read_csv, write_csv
from learned_optimizer.utils.markdown import markdown_table
from learned_optimizer.utils.measuring import run_module
from meta_training.evaluation.figures import save_figure, subplots
from meta_training.experiments.evaluated import link
from meta_training.experiments.experiment import Experiment
from meta_training.optimizers import save_trained

LABELS = {"hierarchical_rnn": "HierarchicalRNN", "adam": "Adam"}
_LOOKS = {"hierarchical_rnn": "#d1495b", "adam": "#30638e"}
_TEXT = ("optimizer",)
BATCHES = "batch_sizes.csv"
PARAMETERS = "parameters.csv"
_BATCH_COLUMNS = ("optimizer", "batch_size", "parameters", "milliseconds", "peak_bytes")
_PARAMETER_COLUMNS = (
    *("optimizer", "parameters", "tensors", "milliseconds", "ns_per_parameter"),
    *("state_bytes_per_parameter", "compile_seconds", "peak_bytes"),
)


class Cost(Experiment):
    """Measurements on this machine, which should be otherwise idle."""

    name = "cost"
    title = "Wall clock and memory"
    claim = "The architecture has minimal overhead a parameter."
    inference = (
        "A fixed amount of work and memory a parameter does not grow with the batch, "
        "so the optimizer's share of a training step should fall as the batch grows, "
        "until it hardly matters."
    )
    budgets = {
        "small": {
            "batch_sizes": [1, 16],
            "width": 16,
            "parameters": [10_000, 100_000],
            "tensors": 10,
            "repetitions": 5,
        },
        "full": {
            "batch_sizes": [1, 4, 16, 64, 256],
            "width": 64,
            "parameters": [10_000, 100_000, 1_000_000, 10_000_000, 30_000_000],
            "tensors": 50,
            "repetitions": 15,
        },
    }

    def run(self, job):
        settings = job.settings
        # A file, since every measurement is a separate process.
        weights = job.work / "weights.npz"
        save_trained(job.weights, weights)
        rows = []
        for batch_size in settings["batch_sizes"]:
            for way in WAYS:
                job.log(f"{way}, batch size {batch_size}")
                found = run_module(
                    "meta_training.experiments.training_step",
                    optimizer=way,
                    weights=weights,
                    batch_size=batch_size,
                    width=settings["width"],
                    repetitions=settings["repetitions"],
                )
                rows.append([found[name] for name in _BATCH_COLUMNS])
        write_csv(job.folder / BATCHES, _BATCH_COLUMNS, rows)
        rows = []
        for parameters in settings["parameters"]:
            job.log(f"{parameters} parameters")
            problem = (None, parameters, settings["tensors"])
            found = measure(problem, settings["repetitions"], 2, weights)
            for way in WAYS:
                figures = {
                    **found[way],
                    "optimizer": way,
                    "tensors": settings["tensors"],
                }
                rows.append([figures[name] for name in _PARAMETER_COLUMNS])
        write_csv(job.folder / PARAMETERS, _PARAMETER_COLUMNS, rows)
        _draw(job.folder)

    def findings(self, folder, settings):
        batches = read_csv(folder / BATCHES, _TEXT)
        parameters = read_csv(folder / PARAMETERS, _TEXT)
        return "\n\n".join(
            [
                "A training step of a residual network of "
                f"{batches[0]['parameters']:,.0f} parameters on images of 32 pixels; "
                "memory is the most that its process held, TensorFlow included.",
                _beside(batches, "batch_size", "batch size"),
                "The optimizer alone, on made-up gradients.",
                _beside(parameters, "parameters", "parameters"),
                f"All figures: {link(folder, BATCHES, PARAMETERS)}.",
            ]
        )

    def describe(self, folder, settings):
        return (
            f"medians of {settings['repetitions']} steps on the machine that ran this, "
            "each training step in a separate process; other work on the machine, if "
            "there was any, is in the times"
        )


def _beside(rows, key, label):
    """A table of our figures and those of Adam, a row for each value of `key`."""
    cells = []
    for value in dict.fromkeys(row[key] for row in rows):
        ours, adam = (
            next(r for r in rows if r[key] == value and r["optimizer"] == way)
            for way in WAYS
        )
        cells.append(
            [
                f"{value:,.0f}",
                f"{ours['milliseconds']:.1f}",
                f"{adam['milliseconds']:.1f}",
                f"{ours['milliseconds'] / adam['milliseconds']:.2f}",
                f"{ours['peak_bytes'] / 1e9:.2f}",
                f"{adam['peak_bytes'] / 1e9:.2f}",
            ]
        )
    header = [label, "HierarchicalRNN, ms", "Adam, ms", "ratio"]
    header += ["HierarchicalRNN, peak GB", "Adam, peak GB"]
    return markdown_table(header, cells)


def _draw(folder):
    """Times and memory, against batch size and against parameters."""
    figure, axes = subplots(4, width=4.8, height=3.1)
    for file, key, kind, panels in (
        (BATCHES, "batch_size", "training step", axes[:2]),
        (PARAMETERS, "parameters", "optimizer alone", axes[2:]),
    ):
        rows = read_csv(folder / file, _TEXT)
        units = {"milliseconds": 1.0, "peak_bytes": 1e9}
        for axis, (column, unit) in zip(panels, units.items(), strict=True):
            for way in WAYS:
                own = [row for row in rows if row["optimizer"] == way]
                axis.plot(
                    [row[key] for row in own],
                    [row[column] / unit for row in own],
                    "o-",
                    color=_LOOKS[way],
                    label=LABELS[way],
                )
            axis.set(xscale="log", xlabel=key.replace("_", " "))
        panels[0].set(yscale="log", title=f"{kind}, ms")
        highest = max(row["peak_bytes"] for row in rows) / 1e9
        panels[1].set(title=f"{kind}, peak GB", ylim=(0, 1.1 * highest))
    save_figure(figure, axes[0], folder / "cost.png")
