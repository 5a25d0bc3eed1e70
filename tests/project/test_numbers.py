"""Every number on README, a card or a report follows from a file of the repository.

The tables of the paper's experiments are checked beside the code that writes them
(`tests/meta_training/experiments/test_report.py`). `python -m
tests.project.test_numbers` writes the tables of the pages anew.
"""

import functools
import json
import pathlib
import re

import numpy as np
import pytest

from learned_optimizer.weights import ALIASES, FOLDER
from tests.project.evaluation_tables import (
    METRICS,
    Runs,
    agrees,
    parse,
    read_rows,
    wrong_cells,
)

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "meta_training" / "results"
EXPERIMENTS = RESULTS / "experiments" / "full"
IMAGENET = ROOT / "imagenet" / "results"
NETWORKS = EXPERIMENTS / "unseen_networks" / "runs.csv"
RELEASED = EXPERIMENTS / "training_corpus" / "runs.csv"
# The weights that `default` stands for.
CURRENT = ALIASES["default"]
FINAL = RESULTS / CURRENT / "final" / "runs.csv"
# A baseline that ran on some of the final group.
SCHEDULE_FREE = RESULTS / "final_baselines" / "runs.csv"
# Baselines on training tasks: one rate of each, for the final group.
TRAINING_TASKS = RESULTS / "default_networks" / "runs.csv"
# The runs of each evaluation on a card, in its order.
EVALUATIONS = {
    "default-v2": [
        [RESULTS / "default-v2" / f"{part}.csv"] for part in ("test", "rates", "long")
    ],
    "default-v3": [[RESULTS / "default-v3" / "runs.csv"]],
    CURRENT: [[RESULTS / CURRENT / "test.csv"], [FINAL]],
    "released-v2": [[RESULTS / "released-v2" / "runs.csv", RELEASED]],
    "no_neural_networks-v1": [
        [RESULTS / "no_neural_networks-v1" / "runs.csv", NETWORKS]
    ],
}
DEFAULT = EVALUATIONS[CURRENT][0] + [NETWORKS]
# Their cards stay as they are; the runs behind them are not kept.
SUPERSEDED = {f"default-v{number}" for number in (1, 4, 5, 6)} | {"released-v1"}


def card(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


TABLES = [
    pytest.param(name, number, title, id=f"{name}-{number}-{title}")
    for name in EVALUATIONS
    for number, evaluation in enumerate(card(name)["evaluations"])
    for title in evaluation
    if title != "command"
]


@functools.cache
def runs_of(*paths):
    others = TRAINING_TASKS if paths[0] == FINAL else None
    return Runs(*paths, other_tasks=others)


def test_the_evaluations_of_all_cards_are_checked():
    names = {path.stem for path in FOLDER.glob("*-v*.json")}
    evaluated = {name for name in names if card(name).get("evaluations")}
    assert evaluated - SUPERSEDED == set(EVALUATIONS)
    assert not SUPERSEDED & set(ALIASES.values())


@pytest.mark.parametrize("name, number, title", TABLES)
def test_the_tables_of_cards_and_reports(name, number, title):
    lines = card(name)["evaluations"][number][title]
    reports = [path.read_text("utf-8") for path in (RESULTS / name).rglob("report.md")]
    assert any("\n".join(lines) in report for report in reports)
    if lines:
        runs = runs_of(*EVALUATIONS[name][number])
        assert list(wrong_cells(title, lines, runs)) == []


def test_a_wrong_cell_is_found():
    lines = list(card("default-v2")["evaluations"][0]["Final loss of each task"])
    lines[2] = lines[2].replace("5.96e-06", "5.95e-06")
    runs = runs_of(*EVALUATIONS["default-v2"][0])
    ((row, column, text, _),) = wrong_cells("Final loss of each task", lines, runs)
    assert (row, column, text) == ("relu_perceptron", "default-deep, 0.001", "5.95e-06")


COMPARISONS = ["inception_v3_75px", "resnet_v2_50_48px", "resnet_v2_50_48px_cosine"]
KNOWN_LENGTH = "resnet_v2_50_48px_known_length"


@functools.cache
def losses_of(folder):
    """The losses of each optimizer of a comparison, step by step."""
    found = {}
    text = ("model", "optimizer", "weights_sha256")
    for row in read_rows(IMAGENET / folder / "curves.csv", text):
        found.setdefault(row["optimizer"], []).append(row["loss"])
    return {name: np.array(losses) for name, losses in found.items()}


@pytest.mark.parametrize("folder", [*COMPARISONS, KNOWN_LENGTH])
def test_the_losses_of_a_comparison(folder):
    report = (IMAGENET / folder / "report.md").read_text(encoding="utf-8")
    table = re.search(r"^\| optimizer, rate \|.*?\n\n", report, re.M | re.S)[0]
    rows = parse(table.split("\n")[:-2])
    assert len(rows) == len(losses_of(folder))
    for row in rows:
        name = row["optimizer, rate"].partition(",")[0]
        losses = losses_of(folder)[
            name.replace("HierarchicalRNN()", "hierarchical_rnn")
        ]
        for column, text in row.items():
            if step := re.fullmatch(r"loss at step (\d+)", column):
                last = int(step[1])
                assert agrees(text, losses[last - 100 : last].mean()), (name, column)


def test_the_losses_of_large_networks_by_hundreds_of_steps():
    text = (IMAGENET / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| steps \|.*?\n\n", text, re.M | re.S)
    # The second table is of the run under a cosine, and has learned rates too.
    for folder, table in zip(COMPARISONS[1::-1], (tables[0], tables[2]), strict=True):
        for row in parse(table.split("\n")[:-2]):
            steps = re.fullmatch(r"([\d,]+) to ([\d,]+)", row.pop("steps"))
            if steps is None:
                continue
            first, last = (int(number.replace(",", "")) for number in steps.groups())
            names = ("hierarchical_rnn", "rmsprop", "adam", "momentum")
            columns = [losses_of(folder)[name] for name in names]
            if folder == COMPARISONS[1]:
                known = losses_of(KNOWN_LENGTH)
                columns = [known["hierarchical_rnn"], *columns, known["adam"]]
            for losses, cell in zip(columns, row.values(), strict=True):
                assert agrees(cell, losses[first - 1 : last].mean())


def cells(values):
    return "| " + " | ".join(values) + " |"


OWN = (CURRENT, f"{CURRENT}, horizon known")
RIVALS = ("NAdamW, one for all", "NAdamW, best", "Adam, best", "RMSprop, best")
NAMES = {"lenet": "LeNet", "mnist": "MNIST", "relu": "ReLU", "2000": "2,000"}


def rows_of_the_final_group():
    runs = runs_of(FINAL)
    columns = [runs.typical(label) for label in OWN + RIVALS]
    for task, name in enumerate(runs.tasks):
        words = " ".join(NAMES.get(word, word) for word in name.split("_"))
        words = words.replace("heavy tailed", "heavy-tailed")
        yield cells([words, *(f"{column[task]:.3g}" for column in columns)])


def rows_of_large_networks():
    for name, folder in (
        ("ResNet50V2, 48 px", "resnet_v2_50_48px"),
        ("Inception V3, 75 px", "inception_v3_75px"),
    ):
        names = ("hierarchical_rnn", "adam", "momentum", "rmsprop")
        last = {key: losses_of(folder)[key][-100:].mean() for key in names}
        known = "not run"
        if folder == COMPARISONS[1]:
            found = {k: v[-100:].mean() for k, v in losses_of(KNOWN_LENGTH).items()}
            known = f"{found['hierarchical_rnn']:.3f}"
            last["adam"] = min(last["adam"], found["adam"])
        yield cells([name, known, *(f"{last[key]:.3f}" for key in names)])


def rows_of_cost():
    rows = read_rows(EXPERIMENTS / "cost" / "batch_sizes.csv")
    steps = {(row["optimizer"], row["batch_size"]): row for row in rows}
    for batch in (1, 16, 64, 256):
        both = [steps[name, batch] for name in ("hierarchical_rnn", "adam")]
        times = [f"{row['milliseconds']:.0f} ms" for row in both]
        peaks = [f"{row['peak_bytes'] / 1e9:.2f} GB" for row in both]
        yield cells([str(batch), *times, ", ".join(peaks)])


PAGE_TABLES = {
    ("README.md", "final group"): rows_of_the_final_group,
    ("README.md", "large networks"): rows_of_large_networks,
    ("README.md", "cost"): rows_of_cost,
}


def with_its_table(text, page, name):
    """The text of a page with the rows of one of its tables computed."""
    place = re.compile(rf"(<!-- table: {name} -->\n.*\n.*\n)[^<]*(<!-- end -->)")
    rows = "".join(f"{row}\n" for row in PAGE_TABLES[page, name]())
    text, count = place.subn(lambda found: found[1] + rows + found[2], text)
    assert count == 1
    return text


@pytest.mark.parametrize("page, name", PAGE_TABLES)
def test_the_tables_of_a_page(page, name):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == with_its_table(text, page, name)


WORDS = "none one two three four five six seven eight".split()


def tasks_ahead(runs, own, other, metric=METRICS[1], ties=True):
    """On how many tasks one label is at or below another, by means of log-losses."""
    own, other = (runs.table(label, metric).mean(axis=1) for label in (own, other))
    return int(np.sum(own <= other if ties else own < other))


def wins_in_the_final_group():
    runs = runs_of(FINAL)
    order = [RIVALS[i] for i in (2, 3, 0, 1)]
    return [WORDS[tasks_ahead(runs, own, other)] for own in OWN for other in order]


def schedule_free_ahead():
    other = runs_of(SCHEDULE_FREE)
    own = runs_of(FINAL).typical(OWN[1])[: len(other.tasks)]
    assert runs_of(FINAL).tasks[: len(other.tasks)] == other.tasks
    labels = ("Schedule-free AdamW, best", "Schedule-free AdamW")
    ahead = [WORDS[np.sum(other.typical(label) < own)] for label in labels]
    rates = len(other.all_rates("Schedule-free AdamW"))
    return WORDS[len(other.tasks)], WORDS[rates], *ahead


def helped_by_the_length():
    own, known = OWN
    helped = tasks_ahead(runs_of(FINAL), known, own, ties=False)
    return WORDS[helped], WORDS[len(runs_of(FINAL).tasks) - helped]


def baselines_ahead():
    runs = runs_of(*DEFAULT)
    own, *best = (
        runs.typical(label) for label in (OWN[0], "RMSprop, best", "Adam, best")
    )
    return [WORDS[np.sum(values < own)] for values in best]


def steps_ahead(folder):
    """The hundreds of steps in which the learned optimizer is below all others."""
    means = {n: v.reshape(-1, 100).mean(axis=1) for n, v in losses_of(folder).items()}
    own = means.pop("hierarchical_rnn")
    ahead = np.flatnonzero(np.all(own < list(means.values()), axis=0))
    assert np.array_equal(ahead, np.arange(ahead[0], ahead[-1] + 1))
    return ahead[0] * 100, (ahead[-1] + 1) * 100


def accuracies():
    """On new images of ResNet50V2, its length known, and Adam's."""
    paths = [
        IMAGENET / KNOWN_LENGTH / f"resnet_v2_50_{name}_seed0" / "eval.csv"
        for name in ("hierarchical_rnn", "adam")
    ]
    return [f"{read_rows(path)[-1]['top_1']:.1%}" for path in paths]


def shares_of_a_step():
    path = IMAGENET / "share_224px" / "timing.csv"
    rows = {row["batch_size"]: row for row in read_rows(path, ("model", "optimizer"))}
    return [f"{rows[batch]['optimizer_share']:.0%}" for batch in (1, 32)]


def released_shares():
    runs = runs_of(*EVALUATIONS["released-v2"][0])
    counts = [
        tasks_ahead(runs, "released-v2", "Adam, best", METRICS[0]),
        tasks_ahead(runs, "released-v2", "Adam, best", ties=False),
    ]
    return [len(runs.tasks), *(f"{count / len(runs.tasks):.0%}" for count in counts)]


def no_neural_networks_ahead():
    runs = runs_of(*EVALUATIONS["no_neural_networks-v1"][0])
    own = "no_neural_networks-v1"
    return [WORDS[tasks_ahead(runs, own, label)] for label in ("Adam", "Adam, best")]


def hours_of_default():
    found = card("default-v2")
    minutes = 60 * found["wall_clock_hours"]
    minutes += sum(each.get("seconds", 0) for each in found["calibrations"]) / 60
    return found["outer_step"], round(minutes)


def convolutional_losses():
    runs = runs_of(*EVALUATIONS["default-v2"][0])
    own = runs.typical("default-deep")[runs.tasks.index("convolutional_network")]
    lines = card("default-v1")["evaluations"][0]["Final loss of each task"]
    (row,) = [line for line in lines if "convolutional_network" in line]
    return f"{own:.3g}", f"{float(row.split('|')[2]):.2g}"


# Words of a page, with `{}` for what is computed from files.
CLAIMS = [
    ("README.md", "at or below the best Adam on {} networks of eight, the best RMSprop "
     "on {}, NAdamW at one rate on {} and the best NAdamW on {}; with its length known "
     "on {}, {}, {} and {}", wins_in_the_final_group),
    ("README.md", "that helps {} networks and harms {}", helped_by_the_length),
    ("README.md", "on the first {} alone ([report](meta_training/results/"
     "final_baselines/report.md)): at the best of {} rates it ends below `total_steps` "
     "on {} of them, at its default rate on {}", schedule_free_ahead),
    ("README.md", "the best of 12 rates of RMSprop ends lower on {} of five, Adam's on "
     "{}", baselines_ahead),
    ("README.md", "on ResNet50V2, and ahead on new images, {} for {} of Adam",
     accuracies),
    ("README.md", "on Inception V3 after being ahead from step {} to {:,}",
     lambda: steps_ahead("inception_v3_75px")),
    ("README.md", "it takes {} at batch 1 and {} at batch 32", shares_of_a_step),
    ("README.md", "on fresh instances of those {} tasks, against Adam at the best rate "
     "for each: at or below it on {} by the log-loss averaged over 1,000 steps, below "
     "it on {} by the final loss", released_shares),
    ("README.md", "on the five networks below Adam at 1e-3 on {}, below the best Adam "
     "on {}", no_neural_networks_ahead),
    ("README.md", "meta-trained for {} outer steps and calibrated, {} minutes on two "
     "cores", hours_of_default),
    ("README.md", "{} at the end, where `default-v1` had {}", convolutional_losses),
]  # fmt: skip


@pytest.mark.parametrize("page, words, compute", CLAIMS)
def test_the_numbers_of_a_sentence(page, words, compute):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert words.format(*compute()) in text


# Numbers that are no measurements, and those that other tests or pages hold.
PLAIN = [
    # Settings of runs.
    r"12 rates|[\d,]+ steps|5% of warm-up|100 classes|Adam(?: at|,) 1e-3|batch \d+",
    r"\d+(?:-pixel| px)",
    r"1,230,410 parameters|86 problems|66 small problems",
    r"1 / \(1 \+ t / 1000\)",  # learned_optimizer/rule/nominal_rate.py
    r"76 bytes per parameter, where Adam has 8|1,500 floating-point",  # docs/keras.md
    r"43 ns on two cores with AVX-512, 59 ns without",  # docs/measurements.md
    r"AVX-512|--use-pep517|Apache-2\.0|800 MB|2\.7 GB|15 minutes",
    r"(?:Python|TensorFlow|Keras|ICML|older than|to|and) \d+(?:\.\d+)?|python3",
    r"ResNet50V2|Inception V3|ResNet V2|-v\d|arXiv [\d.]+|(?<=\s)\d\. (?=[`A-Z])",
]


def test_every_number_of_the_readme_is_checked():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- table.*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|\]\([^)]*\)|<img.*?>", "", text, flags=re.DOTALL)
    text = " ".join(text.split())
    for page, words, compute in CLAIMS:
        if page == "README.md":
            text = text.replace(words.format(*compute()), "")
    for pattern in PLAIN:
        text = re.sub(pattern, "", text)
    assert re.findall(r".{0,40}\d.{0,40}", text) == []


if __name__ == "__main__":
    for page, name in PAGE_TABLES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        path.write_text(with_its_table(text, page, name), encoding="utf-8")
