"""Experiments as they run: variants, costs, the command line."""

import csv
import dataclasses
import math
import re
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.rule.meta_parameters import specifications
from meta_training.experiments import cost, runner, training, variant
from meta_training.experiments.ablations import VARIANTS, WHOLE, architecture
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.experiment import SHARED_TRAINING, Job
from meta_training.optimizers import (
    HierarchicalRule,
    as_trained,
    load_trained,
)
from tests.meta_training.experiments_by_hand import cells


# Of the design, section 1, without the nominal rate.
@pytest.mark.parametrize(
    "name, numbers",
    [
        (WHOLE, 8349),
        ("attention added", 8363),
        ("no global level", 3979),
        ("no tensor and global level", 749),
    ],
)
def test_architectures_are_those_of_the_design(name, numbers):
    config = dataclasses.replace(architecture(name), nominal=None)
    shapes = [specification.shape for specification in specifications(config)]
    assert sum(math.prod(shape) for shape in shapes) == numbers


def test_every_ablation_changes_the_architecture():
    assert len({architecture(variant) for variant in VARIANTS}) == len(VARIANTS)


def test_the_whole_is_the_architecture_of_weights_that_ship():
    shipped = load_weights("default-v1").config
    assert architecture(WHOLE) == shipped
    later = load_weights("default-v2").config
    bounds = {"largest": 1.0, "shallow_tensors": 16.0}
    nominal = dataclasses.replace(shipped.nominal, **bounds)
    assert dataclasses.replace(shipped, nominal=nominal) == later


class Ended:
    """A process that ends at once, with the status that its class has."""

    exitcode = 0

    def __init__(self, target, args):
        self.started.append(args)

    def start(self):
        pass

    def join(self):
        pass


@pytest.fixture
def processes(monkeypatch):
    """The class of processes of variants; `started` has their arguments."""
    found = type("Process", (Ended,), {"started": []})
    monkeypatch.setattr(
        variant.multiprocessing,
        "get_context",
        lambda method: types.SimpleNamespace(Process=found),
    )
    monkeypatch.setattr(variant, "load_seeds", lambda *_: [])
    return found


def test_meta_training_is_shared_by_settings_that_do_not_touch_it(
    tmp_path, weights, processes
):
    def train(work, changes=None, training=None, name="whole"):
        settings = {"training": training or {"outer_steps": 4}, **(changes or {})}
        job = Job(settings, weights, tmp_path, tmp_path / work, tmp_path / "cache")
        variant.train_and_evaluate(
            job, HierarchicalRule(architecture(name)), "a b", [0]
        )
        _, _, _, _, folder, _ = processes.started[-1]
        return folder, (job.work / SHARED_TRAINING).exists()

    first, shared = train("one")
    assert not shared
    # Other weights that are judged, and other draws.
    assert train("two", {"weights_sha256": "abc", "seeds": 9}) == (first, True)
    assert train("three", training={"outer_steps": 5})[0] != first
    assert train("four", name="attention added")[0] != first
    assert train("one")[0] == first


def test_a_variant_that_fails_is_named(tmp_path, weights, processes):
    processes.exitcode = 3
    job = Job(
        {"training": {}}, weights, tmp_path, tmp_path / "work", tmp_path / "cache"
    )
    rule = HierarchicalRule(architecture("attention added"))
    with pytest.raises(RuntimeError, match="status 3 for 'with attention'"):
        variant.train_and_evaluate(job, rule, "with attention", [4, 5])
    ((_, trained, label, seeds, _, _),) = processes.started
    assert (trained, label, seeds) == (rule, "with attention", [4, 5])


def test_each_seed_is_a_run_and_a_start_without_its_card_is_drawn_again(
    tmp_path, monkeypatch
):
    started = []

    class Recorded:
        def __init__(self, config, folder):
            started.append(
                (folder.name, config.seed, load_trained(config.init_weights))
            )

        def train(self):
            pass

    monkeypatch.setattr(training, "Trainer", Recorded)
    monkeypatch.setattr(training, "load_seeds", lambda *_: [])
    rule = HierarchicalRule(architecture("no tensor and global level"))
    for _ in range(2):
        training.meta_train(rule, "a", [0, 1], training.TRAINING["small"], tmp_path)
        # What a kill between the two files leaves.
        (tmp_path / "start1.json").unlink()
    assert [start[:2] for start in started] == [("seed0", 0), ("seed1", 1)] * 2
    for (*_, one), (*_, other) in zip(started[:2], started[2:], strict=True):
        for name, value in one.meta_parameters.items():
            np.testing.assert_array_equal(value, other.meta_parameters[name])


def test_a_variant_ends_with_its_parent(tmp_path):
    """A process that is killed takes its child along, which would sleep for long."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, pathlib, sys, threading, time\n"
        "from meta_training.experiments.variant import _end_with_parent\n"
        "def child(path):\n"
        "    threading.Thread(target=_end_with_parent, daemon=True).start()\n"
        "    while True:\n"
        "        pathlib.Path(path).write_text(str(time.time()))\n"
        "        time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    process = context.Process(target=child, args=(sys.argv[1],))\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    beat = tmp_path / "beat"
    parent = subprocess.Popen([sys.executable, script, beat])
    end = time.monotonic() + 120
    while not beat.exists() and time.monotonic() < end:
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    time.sleep(2)
    last = beat.read_text()
    time.sleep(1)
    assert beat.read_text() == last


@pytest.mark.slow
def test_experiments_run_from_the_command_line_and_not_again(tmp_path):
    names = ["earlier_optimizers", "initial_learning_rate"]
    arguments = [
        f"--output={tmp_path / 'output'}",
        f"--results={tmp_path / 'results'}",
        f"--report={tmp_path / 'REPORT.md'}",
    ]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-m", "meta_training.experiments", *arguments, *more],
            capture_output=True,
            text=True,
        )

    first = run(*names, "report")
    assert first.returncode == 0, first.stderr[-3000:]
    for name in names:
        folder = tmp_path / "output" / name
        assert runner.read_done(folder)
        assert sum(path.stat().st_size > 5000 for path in folder.glob("*.png")) == 1
    text = (tmp_path / "REPORT.md").read_text()
    assert text.count("\n*Budget `small`, ") == 2
    assert "coordinate-wise RNN" in text
    again = run(*names)
    assert again.returncode == 0 and again.stderr.count("done before") == 2
    trained = "output/work/earlier_optimizers/*/*/seed0/weights.npz"
    assert len(list(tmp_path.glob(trained))) == 2
    unknown = run("nonsense")
    assert unknown.returncode == 1
    assert "initial_learning_rate" in unknown.stderr.splitlines()[-1]
    unwritable = run("all", f"--results={tmp_path / 'REPORT.md' / 'below'}")
    assert unwritable.returncode == 1
    assert unwritable.stderr.splitlines()[-1].startswith("experiments: ")


class TestCost:
    SETTINGS = {
        "batch_sizes": [2],
        "width": 1,
        "parameters": [50],
        "tensors": 2,
        "repetitions": 1,
    }

    @pytest.fixture
    def job(self, tmp_path):
        for name in ("folder", "work"):
            (tmp_path / name).mkdir()
        judged = as_trained(load_weights("bootstrap-v1"))
        folder, work = tmp_path / "folder", tmp_path / "work"
        return Job(self.SETTINGS, judged, folder, work, tmp_path / "cache")

    def test_measures_the_weights_that_are_judged(self, job, monkeypatch):
        measured = []

        def figures(way, weights):
            measured.append(load_weights(weights).to_flat())
            columns = (*cost._BATCH_COLUMNS, *cost._PARAMETER_COLUMNS)
            return {**dict.fromkeys(columns, 7), "optimizer": way}

        def child(module, optimizer=None, peak=None, weights="default", **_):
            return figures(optimizer or peak, weights)

        def measure(ways, problem, repetitions, warm_ups, peak, weights="default"):
            return {way: figures(way, weights) | peak(way) for way in ways}

        monkeypatch.setattr(cost, "_child", child)
        monkeypatch.setattr(cost, "measure", measure)
        experiment("cost").run(job)
        # Two training steps; two optimizers alone, and the peak of each.
        assert len(measured) == 2 + 2 * 2
        for numbers in measured:
            np.testing.assert_array_equal(
                numbers, load_weights("bootstrap-v1").to_flat()
            )
        text = experiment("cost").findings(job.folder, job.settings)
        assert len(re.findall(r"^\| 7 \|", text, re.MULTILINE)) == 2

    @pytest.mark.slow
    def test_runs(self, job):
        experiment("cost").run(job)
        text = experiment("cost").findings(job.folder, job.settings)
        rows = [line for line in text.splitlines() if re.match(r"\| (2|50) \|", line)]
        assert len(rows) == 2
        for row in rows:
            assert all(float(cell) > 0 for cell in row.split("|")[2:-1])
        assert (job.folder / "cost.png").stat().st_size > 5000


@pytest.mark.slow
def test_baselines_are_run_beside_the_weights(tmp_path, weights):
    settings = {
        "sets": ["released"],
        "tasks": ["bowl_5"],
        "steps": 3,
        "seeds": 2,
        "records": 2,
        "learning_rates": [0.001, 0.1],
    }
    (tmp_path / "folder").mkdir()
    job = Job(
        settings, weights, tmp_path / "folder", tmp_path / "work", tmp_path / "cache"
    )
    found = experiment("training_corpus")
    found.run(job)
    with open(job.folder / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # The weights at their own rate, a baseline at both that are tried.
    runs = dict.fromkeys((weights.name, *found.baselines), 0)
    for row in rows:
        runs[row["optimizer"]] += 1
    assert runs == {weights.name: 2, "Adam": 4, "RMSprop": 4}
    names = [line[0] for line in cells(found.findings(job.folder, settings))]
    assert names == ["Adam", "RMSprop"]
    assert "1 task, 2 draws of each, 3 steps" in found.describe(job.folder, settings)
    assert (job.folder / "curves.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", cost.WAYS)
def test_a_training_step_is_measured_in_a_process_of_its_own(optimizer):
    found = cost._child(
        "meta_training.experiments.training_step",
        optimizer=optimizer,
        batch_size=2,
        width=1,
        repetitions=2,
    )
    # Kernels and biases: the first convolution; in each stage the short cut and two
    # convolutions; the classifier.
    channels = [1, 1, 2, 4]
    parameters = 9 * 3 * 1 + 1 + 4 * 10 + 10
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        parameters += (inputs + 9 * inputs + 9 * outputs) * outputs + 3 * outputs
    assert found["parameters"] == parameters
    assert found["optimizer"] == optimizer and found["batch_size"] == 2
    assert found["milliseconds"] > 0 and found["peak_bytes"] > 1e8


def test_a_measurement_that_fails_says_why():
    with pytest.raises(RuntimeError, match="exit status 1 of no_such_module"):
        cost._child("no_such_module")
