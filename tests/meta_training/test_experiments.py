"""Experiments: whole or not there, not run twice, numbers recomputed by hand."""

import csv
import dataclasses
import json
import math
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.meta_parameters import specifications
from learned_optimizer.weights import ALIASES
from meta_training.experiments import __main__ as command
from meta_training.experiments import (
    cost,
    imagenet_networks,
    judged_weights,
    runner,
    sittings,
    variant,
)
from meta_training.experiments.ablations import VARIANTS, WHOLE, architecture
from meta_training.experiments.catalogue import experiment, list_experiments
from meta_training.experiments.evaluated import choose_tasks
from meta_training.experiments.pictures import save_figure
from meta_training.experiments.registry import (
    BUDGETS,
    Experiment,
    Job,
    register_experiment,
)
from meta_training.experiments.report import report_text, write_report
from meta_training.experiments.runner import Request, collect, run_experiment
from meta_training.reports.tables import RUN_COLUMNS
from meta_training.trainable_optimizers import (
    HierarchicalRule,
    as_trained,
    trainable_optimizer,
)

ROOT = pathlib.Path(__file__).parents[2]
NAMES = [
    "earlier_optimizers",
    "training_corpus",
    "unseen_networks",
    "imagenet",
    "initial_learning_rate",
    "ablations",
    "cost",
]


class Counted(Experiment):
    """Counts its runs; stands for any experiment."""

    name = "counted"
    title = "Counted"
    claim = "A claim."
    budgets = {budget: {"seeds": 1, "steps": 5} for budget in BUDGETS}

    def __init__(self):
        self.runs = 0
        self.fails = False

    def run(self, job):
        self.runs += 1
        job.work.mkdir(parents=True, exist_ok=True)
        (job.folder / "numbers.csv").write_text(f"steps\n{job.settings['steps']}\n")
        if self.fails:
            raise RuntimeError("killed")
        (job.folder / "figure.png").write_bytes(b"picture")

    def findings(self, folder, settings):
        steps = (folder / "numbers.csv").read_text().split()[1]
        return f"It took {steps} steps, see [numbers.csv](numbers.csv)."

    def describe(self, folder, settings):
        return f"{(folder / 'numbers.csv').read_text().split()[1]} steps"


@pytest.fixture(scope="module")
def weights():
    return as_trained(load_weights("default"))


@pytest.fixture
def request_of(weights):
    def make(budget="small", seeds=None):
        return Request(budget, seeds, weights)

    return make


def test_every_experiment_of_the_paper_exists():
    assert list_experiments() == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_settings_are_json_and_name_tasks_that_exist(name, budget, tmp_path):
    found = experiment(name)
    settings = found.settings(budget, seeds=7)
    assert json.loads(json.dumps(settings)) == settings
    assert settings.get("seeds", 7) == 7
    assert found.budgets[budget].get("seeds") != 7
    write_runs(tmp_path, ["whole, seed 0"], ["a_net"], [0.1, 0.001])
    assert found.describe(tmp_path, settings)
    if "sets" in settings:
        tasks = choose_tasks(settings["sets"], settings["tasks"])
        assert len(tasks) == len(settings["tasks"] or tasks) > 0


def test_claims_are_the_papers_alone():
    """Nothing of weights of ours, and no conclusion of ours."""
    ours = "default-v|bootstrap|released-v|weights|should|tuned"
    for name in NAMES:
        assert not re.search(ours, experiment(name).claim), name
    inferred = {name for name in NAMES if experiment(name).inference}
    assert {"ablations", "cost", "initial_learning_rate"} <= inferred


class TestCommands:
    """A command in a report runs again what is reported."""

    @pytest.mark.parametrize(
        "name, written",
        [
            ("default", ALIASES["default"]),
            ("default-v1", "default-v1"),
            ("runs/a/weights.npz", "runs/a/weights.npz"),
        ],
    )
    def test_weights_are_named_by_version(self, name, written, weights):
        command = Request("full", 2, weights, name).command(experiment("cost"))
        assert command == (
            "python -m meta_training.experiments cost --budget=full --seeds=2 "
            f"--weights={written}"
        )

    @pytest.mark.parametrize(
        "name, end", [("ablations", " --budget=small"), ("imagenet", "")]
    )
    def test_only_what_plays_a_part_is_named(self, name, end, request_of):
        found = experiment(name)
        command = request_of().command(found)
        assert command == f"python -m meta_training.experiments {name}{end}"
        assert "weights_sha256" not in request_of().settings(found)


class TestJudgedWeights:
    def test_without_a_card_their_numbers_name_them(self, weights):
        unsaved = dataclasses.replace(weights, card={})
        again = dataclasses.replace(weights, card={}, name="other")
        values = dict(weights.meta_parameters)
        values["learning_rate_bias"] = values["learning_rate_bias"] + 1
        changed = dataclasses.replace(unsaved, meta_parameters=values)
        slower = dataclasses.replace(unsaved, initial_learning_rate=1e-6)
        found = [
            Request("small", None, w).settings(experiment("cost"))["weights_sha256"]
            for w in (weights, unsaved, again, changed, slower)
        ]
        assert found[0] == load_weights("default").card["sha256"]
        assert found[1] == found[2]
        assert len(set(found)) == 4 and all(len(sha256) == 64 for sha256 in found)

    @pytest.mark.parametrize(
        "name, said",
        [
            (
                "default-v1",
                "was meta-trained on the task set `default_networks` for 100 outer "
                "steps, from `bootstrap-v1`, then calibrated.",
            ),
            (
                "no_neural_networks-v1",
                "was meta-trained on the task set `no_neural_networks` for 200 outer "
                "steps.",
            ),
            (
                "released-v1",
                "was meta-trained on the task set `released` for 960 outer steps.",
            ),
            ("bootstrap-v1", "was meta-trained, its card does not say."),
        ],
    )
    def test_their_training_is_what_the_card_says(self, name, said):
        trained = as_trained(load_weights(name))
        entry = judged_weights.entry_of(trained)
        assert judged_weights.sentence(entry).endswith(f"`{trained.name}` {said}")
        # An earlier version noted name and sha256 alone.
        earlier = {"name": trained.name, "sha256": trained.card["sha256"]}
        assert judged_weights.completed(earlier) == entry
        others = {**earlier, "sha256": "0" * 64}
        assert "does not say" in judged_weights.sentence(
            judged_weights.completed(others)
        )

    def test_it_stands_beside_what_was_found(self, tmp_path, request_of):
        run_experiment(Counted(), request_of(), tmp_path)
        paragraph = (tmp_path / "counted" / "paragraph.md").read_text()
        assert f"`{ALIASES['default']}` was meta-trained on" in paragraph


@pytest.mark.parametrize("name", ["nonsense", "", "all of them"])
def test_an_unknown_experiment_is_refused(name, capsys):
    with pytest.raises(ValueError, match="earlier_optimizers.*Received: "):
        experiment(name)
    with pytest.raises(SystemExit) as ended:
        command.main(["experiments", name])
    # A string: Python writes it to standard error and ends with status 1.
    message = ended.value.code
    assert "\n" not in message and all(known in message for known in NAMES)
    with pytest.raises(SystemExit, match="Received: none"):
        command.main(["experiments"])


@pytest.mark.parametrize(
    "changes", [{"name": "cost"}, {"name": "all"}, {"budgets": {}}]
)
def test_an_experiment_that_cannot_be_registered(changes):
    with pytest.raises(ValueError, match="must have"):
        register_experiment(type("Bad", (Counted,), changes))


def test_tasks_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="nothing_like_it"):
        choose_tasks(["test"], ["nothing_like_it"])


class TestResuming:
    def test_done_once(self, tmp_path, request_of):
        counted = Counted()
        assert run_experiment(counted, request_of(), tmp_path)
        assert not run_experiment(counted, request_of(), tmp_path)
        assert counted.runs == 1
        done = json.loads((tmp_path / "counted" / "done.json").read_text())
        assert done["budget"] == "small"
        wanted = "python -m meta_training.experiments counted --budget=small"
        assert done["command"] == f"{wanted} --weights={ALIASES['default']}"
        assert done["weights"]["sha256"] == load_weights("default").card["sha256"]
        assert set(done["files"]) == {"numbers.csv", "figure.png", "paragraph.md"}
        paragraph = (tmp_path / "counted" / "paragraph.md").read_text()
        assert "A claim." in paragraph and "It took 5 steps" in paragraph

    def test_other_settings_run_again_and_take_the_place(self, tmp_path, request_of):
        counted = Counted()
        run_experiment(counted, request_of(), tmp_path)
        assert run_experiment(counted, request_of(seeds=3), tmp_path)
        done = runner.read_done(tmp_path / "counted")
        assert done["settings"]["seeds"] == 3
        assert " --budget=small --seeds=3 " in done["command"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["counted", "work"]

    def test_what_failed_leaves_what_was_there(self, tmp_path, request_of):
        counted = Counted()
        counted.fails = True
        with pytest.raises(RuntimeError):
            run_experiment(counted, request_of(), tmp_path)
        assert not (tmp_path / "counted").exists()
        counted.fails = False
        run_experiment(counted, request_of(), tmp_path)
        counted.fails = True
        with pytest.raises(RuntimeError):
            run_experiment(counted, request_of(seeds=2), tmp_path)
        assert runner.read_done(tmp_path / "counted")["settings"]["seeds"] == 1

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "figure.png").unlink(),
            lambda folder: (folder / "numbers.csv").write_text("steps\n6\n"),
            lambda folder: (folder / "done.json").write_text('{"files": '),
            lambda folder: (folder / "done.json").write_text("[]"),
            lambda folder: (folder / "done.json").unlink(),
        ],
    )
    def test_what_is_damaged_is_run_again(self, tmp_path, request_of, damage):
        counted = Counted()
        run_experiment(counted, request_of(), tmp_path)
        damage(tmp_path / "counted")
        assert run_experiment(counted, request_of(), tmp_path)
        assert counted.runs == 2

    def test_seconds_are_those_of_all_sittings(self, tmp_path, request_of, monkeypatch):
        # The clock is read when a run begins and when it ends: 3 and 4 seconds.
        clock = iter([10.0, 13.0, 20.0, 24.0])
        monkeypatch.setattr(sittings.time, "monotonic", lambda: next(clock))
        counted = Counted()
        counted.fails = True
        with pytest.raises(RuntimeError):
            run_experiment(counted, request_of(), tmp_path)
        counted.fails = False
        run_experiment(counted, request_of(), tmp_path)
        done = runner.read_done(tmp_path / "counted")
        assert (done["seconds"], done["sittings"]) == (7.0, 2)
        assert done["seconds_are_all"]

    def test_a_killed_sitting_counts_as_far_as_it_was_noted(
        self, tmp_path, request_of, monkeypatch
    ):
        monkeypatch.setattr(sittings, "_BETWEEN_NOTES", 0.01)
        found = []

        class Killed(Counted):
            def run(self, job):
                super().run(job)
                # Both sittings last until some time was noted on disk.
                path = job.work / sittings.SITTINGS
                while not json.loads(path.read_text())[-1]["seconds"]:
                    time.sleep(0.01)
                found.append((path, path.read_bytes()))

        run_experiment(Killed(), request_of(), tmp_path)
        # What a kill would have left just then.
        shutil.rmtree(tmp_path / "counted")
        path, content = found[0]
        path.write_bytes(content)
        (killed,) = json.loads(content)
        run_experiment(Killed(), request_of(), tmp_path)
        done = runner.read_done(tmp_path / "counted")
        assert done["sittings"] == 2 and not done["seconds_are_all"]
        assert done["seconds"] >= round(killed["seconds"] + 0.1, 1)

    def test_times_of_an_earlier_version_are_read(self, tmp_path):
        (tmp_path / sittings.SITTINGS).write_text("[1.5, 2.0]")
        with sittings.Sitting(tmp_path) as sitting:
            pass
        found = sitting.totals()
        assert found["seconds"] >= 3.5
        assert found["sittings"] == 3 and found["seconds_are_all"]

    def test_only_what_is_done_is_collected(self, tmp_path, request_of):
        output, results = tmp_path / "output", tmp_path / "results"
        run_experiment(Counted(), request_of(), output)
        (output / "cost").mkdir()
        (output / "cost" / "batch_sizes.csv").write_text("optimizer\n")
        assert collect(output, results, ["counted", "cost", "imagenet"]) == ["counted"]
        assert runner.read_done(results / "small" / "counted")
        assert [p.name for p in (results / "small").iterdir()] == ["counted"]


def write_runs(folder, optimizers, tasks, rates, seeds=2):
    """A `runs.csv` of random numbers; the rows, as they are in it."""
    generator = np.random.default_rng(3)
    rows = []
    for optimizer in optimizers:
        for rate in rates:
            for task in tasks:
                for seed in range(seeds):
                    best = generator.uniform(0.01, 1)
                    values = {
                        "optimizer": optimizer,
                        "rate": rate,
                        "is_default_rate": int(rate == rates[1]),
                        "family": "held_out_perceptron" if "net" in task else "bowl",
                        "task": task,
                        "seed": seed,
                        "initial_loss": 2.0,
                        "final_loss": round(best * generator.uniform(1, 3), 6),
                        "best_loss": round(best, 6),
                        "mean_log_loss": round(generator.uniform(-9, 0), 6),
                        "final_log_loss": round(generator.uniform(-9, 0), 6),
                        "test_accuracy": "nan",
                        "seconds_per_step": 0.1,
                    }
                    assert tuple(values) == RUN_COLUMNS
                    rows.append(values)
    write_rows(folder, rows)
    return rows


def write_rows(folder, rows):
    with open(folder / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RUN_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def mean_of(rows, column, **wanted):
    return statistics.fmean(
        row[column]
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
    )


def cells(text):
    """The cells of the rows of the only table in a text."""
    rows = [line[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


class TestFindings:
    """Each number that is said, by another way from the same CSV."""

    def test_against_baselines(self, tmp_path):
        tasks, rates = ["a_net", "b", "c"], [0.001, 0.01, 0.1]
        rows = write_runs(tmp_path, ["ours", "Adam", "RMSprop"], tasks, rates)
        text = experiment("unseen_networks").findings(tmp_path, {})
        assert [line[0] for line in cells(text)] == ["Adam", "RMSprop"]
        for line in cells(text):
            wanted = [line[0]]
            for column in ("mean_log_loss", "final_log_loss"):
                untuned = tuned = 0
                for task in tasks:
                    own = mean_of(rows, column, optimizer="ours", task=task, rate=0.01)
                    by_rate = [
                        mean_of(rows, column, optimizer=line[0], task=task, rate=rate)
                        for rate in rates
                    ]
                    untuned += own <= by_rate[1]
                    tuned += own <= min(by_rate)
                wanted += [f"{untuned} (at 0.01)", str(tuned)]
            assert line == wanted
        own = mean_of(rows, "final_log_loss", optimizer="ours", rate=0.01)
        assert f"ours {own:.2f};" in text

    def test_initial_rates(self, tmp_path):
        tasks, rates = ["a_net", "b"], [0.001, 0.01, 0.1]
        rows = write_runs(tmp_path, ["ours", "Adam"], tasks, rates)
        settings = experiment("initial_learning_rate").settings("small")
        text = experiment("initial_learning_rate").findings(tmp_path, settings)
        assert [line[0] for line in cells(text)] == tasks
        for line in cells(text):
            wanted = [line[0]]
            for optimizer in ("ours", "Adam"):
                losses = [
                    mean_of(
                        rows, "final_loss", optimizer=optimizer, task=line[0], rate=rate
                    )
                    for rate in rates
                ]
                wanted += [f"{min(losses):.3g}", f"{max(losses):.3g}"]
                wanted += [f"{max(losses) / min(losses):.3g}"]
            assert line == wanted

    def test_ablations(self, tmp_path):
        names = [f"{variant}, seed {seed}" for variant in VARIANTS for seed in (0, 1)]
        rows = write_runs(tmp_path, names, ["a_net", "b_net", "bowl"], [0.1, 0.001])
        settings = experiment("ablations").settings("small")
        text = experiment("ablations").findings(tmp_path, settings)
        kinds = {"held_out_perceptron": 1, "bowl": 3}
        score = {
            (variant, seed, family): mean_of(
                rows,
                "mean_log_loss",
                optimizer=f"{variant}, seed {seed}",
                family=family,
                rate=0.001,
            )
            for variant in VARIANTS
            for seed in (0, 1)
            for family in kinds
        }
        assert [line[0] for line in cells(text)] == list(VARIANTS)
        # Settings name three seeds; there are rows of two.
        assert "mean of 2 seeds" in text and "`experiments_small`" in text
        for line in cells(text):
            for family, place in kinds.items():
                first, second = (score[line[0], seed, family] for seed in (0, 1))
                low, high = sorted([first, second])
                mean = (first + second) / 2
                assert line[place] == f"{mean:.2f} ({low:.2f} to {high:.2f})"
                whole = sum(score[WHOLE, seed, family] for seed in (0, 1)) / 2
                # Whoever subtracts the means that are printed finds the same.
                difference = round(round(mean, 2) - round(whole, 2), 2) + 0.0
                wanted = "" if line[0] == WHOLE else f"{difference:+.2f}"
                assert line[place + 1] == wanted

    def test_earlier_optimizers(self, tmp_path):
        tasks, names = ["a_net", "b_net"], ["ours", "coordinate-wise RNN"]
        rows = write_runs(tmp_path, names, tasks, [0.1, 0.001])
        losses = {
            (name, task): 1 / (3 + len(name + task)) for name in names for task in tasks
        }
        with open(tmp_path / "curves.csv", "w") as file:
            file.write("optimizer,setting,rate,task,step,typical_loss\n")
            for (name, task), loss in losses.items():
                for step, factor in ((0, 9), (30, 1), (300, 5)):
                    file.write(f"{name},default,0.1,{task},{step},{loss * factor}\n")
        halved = rows[-1]["final_log_loss"] = -0.695
        assert halved < math.log(0.5) and rows[-1]["rate"] == 0.001
        write_rows(tmp_path, rows)
        text = experiment("earlier_optimizers").findings(tmp_path, {"steps": 300})
        assert [line[0] for line in cells(text)] == names
        assert "10 times the mean length of a trajectory" in text
        for line in cells(text):
            own = [r for r in rows if r["optimizer"] == line[0] and r["rate"] == 0.001]
            geometric = math.prod(losses[line[0], task] for task in tasks) ** 0.5
            final = [row["final_log_loss"] for row in own]
            worst = max(row["final_loss"] / row["best_loss"] for row in own)
            assert line[1:] == [
                f"{geometric:.3g}",
                f"{statistics.fmean(final):.2f}",
                f"{sum(math.exp(value) > 0.5 for value in final)} of {len(final)}",
                f"{worst:.3g}",
            ]

    @pytest.mark.parametrize("name", ["ablations", "earlier_optimizers"])
    def test_counts_are_those_of_what_was_run(self, name, tmp_path):
        """Not of today's task sets, which may have changed or be gone."""
        settings = {
            **experiment(name).settings("full"),
            "sets": ["test", "gone"],
            "tasks": ["gone_too"],
            "seeds": 9,
        }
        settings["training"]["task_set"] = "gone"
        optimizers = ["whole, seed 0", "whole, seed 1"]
        write_runs(tmp_path, optimizers, ["a_net", "b", "c"], [0.1, 0.001], seeds=4)
        text = experiment(name).describe(tmp_path, settings)
        assert re.search("3 (held-out network|task)s, 4 draws of each", text)
        assert "task set `gone`" in text and ("2 seeds" in text) == (
            name == "ablations"
        )

    def test_cost(self, tmp_path):
        (tmp_path / "batch_sizes.csv").write_text(
            "optimizer,batch_size,parameters,milliseconds,peak_bytes\n"
            "hierarchical_rnn,1,5000,30,2e9\nadam,1,5000,10,1e9\n"
        )
        (tmp_path / "parameters.csv").write_text(
            "optimizer,parameters,tensors,milliseconds,ns_per_parameter,"
            "state_bytes_per_parameter,compile_seconds,peak_bytes\n"
            "hierarchical_rnn,100,2,8,1,76,1,3e9\nadam,100,2,2,1,8,1,2e9\n"
        )
        text = experiment("cost").findings(tmp_path, {})
        assert "| 1 | 30.0 | 10.0 | 3.00 | 2.00 | 1.00 |" in text
        assert "| 100 | 8.0 | 2.0 | 4.00 | 3.00 | 2.00 |" in text


class TestImagenet:
    HEADER = ",".join(imagenet_networks.COLUMNS) + "\n"

    @pytest.fixture
    def results(self, tmp_path, monkeypatch):
        folder = tmp_path / "imagenet" / "results"
        monkeypatch.setattr(imagenet_networks, "RESULTS", folder)
        return folder

    def test_reads_the_curves(self, results, tmp_path, request_of, monkeypatch):
        folder = results / "small"
        folder.mkdir(parents=True)
        losses = {"hierarchical_rnn": [], "adam": []}
        with open(folder / "curves.csv", "w") as file:
            file.write(self.HEADER)
            for optimizer, kept in losses.items():
                for step in range(1, 251):
                    kept.append(round(5 / (step + len(optimizer)), 6))
                    rate, sha256 = ("", "abc") if "rnn" in optimizer else ("0.01", "")
                    file.write(
                        f"resnet_v2_50,{optimizer},{rate},0,{step},{step / 2},"
                        f"{kept[-1]},0.5,{sha256}\n"
                    )
        settings = {
            "model": "resnet_v2_50",
            "dataset": "generated",
            "image_size": 48,
            "num_classes": 100,
            "num_images": 10000,
            "batch_size": 32,
        }
        run_folder = folder / "resnet_v2_50_hierarchical_rnn_seed0"
        run_folder.mkdir()
        (run_folder / "settings.json").write_text(json.dumps(settings))
        titles = []
        monkeypatch.setattr(
            imagenet_networks,
            "save_figure",
            lambda figure, *arguments: (
                titles.extend(axis.get_title() for axis in figure.axes),
                save_figure(figure, *arguments),
            ),
        )
        run_experiment(experiment("imagenet"), request_of(), tmp_path / "out")
        out = tmp_path / "out" / "imagenet"
        text = (out / "paragraph.md").read_text()
        images = "48 px, 100 classes, 10,000 for training, batches of 32"
        assert "resnet_v2_50 on generated images (drawn by a program, not" in text
        assert f"ImageNet), {images}." in text
        assert "No results yet of Inception V3. " in text
        assert titles == [f"resnet v2 50\ngenerated images, {images}"]
        assert "Budget" not in text
        for optimizer, kept in losses.items():
            assert f"{statistics.fmean(kept[-100:]):.4g} |" in text, optimizer
        assert "| hierarchical_rnn | none to set |" in text
        assert "| adam | 0.01 |" in text
        assert "sha256 abc" in text and (out / "curves.png").stat().st_size > 5000
        with open(out / "curves.csv", newline="") as file:
            thinned = list(csv.DictReader(file))
        assert len(thinned) == 2 * imagenet_networks.POINTS
        first = [float(row["loss"]) for row in thinned[: imagenet_networks.POINTS]]
        # 250 steps in 100 points: the first fifty are means of three.
        wanted = statistics.fmean(losses["hierarchical_rnn"][:3])
        assert first[0] == pytest.approx(wanted, rel=1e-4)
        # New curves are new inputs.
        assert not run_experiment(
            experiment("imagenet"), request_of(), tmp_path / "out"
        )
        with open(folder / "curves.csv", "a") as file:
            file.write("resnet_v2_50,adam,0.01,0,251,126,0.1,0.5,\n")
        assert run_experiment(experiment("imagenet"), request_of(), tmp_path / "out")
        # So are other settings; no weights that are named are.
        settings["dataset"] = "imagenet2012"
        (run_folder / "settings.json").write_text(json.dumps(settings))
        others = as_trained(load_weights("bootstrap-v1"))
        request = Request("small", None, others)
        assert run_experiment(experiment("imagenet"), request, tmp_path / "out")
        assert not run_experiment(
            experiment("imagenet"), request_of(), tmp_path / "out"
        )
        text = (out / "paragraph.md").read_text()
        assert f"resnet_v2_50 on ImageNet, {images}." in text
        # Runs of one network in one comparison see the same images.
        (folder / "another").mkdir()
        settings["batch_size"] = 16
        (folder / "another" / "settings.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match="must have the same images.*Received"):
            run_experiment(experiment("imagenet"), request_of(), tmp_path / "out")

    def test_says_when_there_are_none(self, results, tmp_path, request_of):
        run_experiment(experiment("imagenet"), request_of(), tmp_path)
        text = (tmp_path / "imagenet" / "paragraph.md").read_text()
        assert "python -m imagenet.benchmark" in text

    def test_refuses_other_columns(self, results, tmp_path, request_of):
        results.mkdir(parents=True)
        (results / "curves.csv").write_text("model,loss\n")
        with pytest.raises(ValueError, match="must have the columns.*model, loss"):
            run_experiment(experiment("imagenet"), request_of(), tmp_path / "out")
        assert not (tmp_path / "out" / "imagenet").exists()


class TestReport:
    @pytest.fixture
    def results(self, tmp_path, request_of, monkeypatch):
        """Two experiments: one with both budgets, one with the small one alone."""
        results = tmp_path / "top" / "results"
        for name in ("cost", "ablations"):
            found = experiment(name)
            for method in ("run", "findings", "describe"):
                function = getattr(Counted, method)
                monkeypatch.setattr(type(found), method, function)
            found.runs, found.fails = 0, False
        for budget, name, steps in (
            ("small", "cost", 11),
            ("full", "cost", 22),
            ("small", "ablations", 33),
        ):
            found = experiment(name)
            settings = {**found.settings(budget), "steps": steps}
            monkeypatch.setattr(
                found, "settings", lambda budget, seeds, s=settings: s, raising=False
            )
            run_experiment(found, request_of(budget), tmp_path / budget)
            collect(tmp_path / budget, results, NAMES)
            monkeypatch.delattr(found, "settings")
        return results

    def test_has_every_experiment(self, results, tmp_path):
        path = tmp_path / "top" / "REPORT.md"
        assert write_report(results, path) == ["ablations", "cost"]
        text = path.read_text()
        titles = re.findall("^## (.*)$", text, re.MULTILINE)
        assert titles == [experiment(name).title for name in NAMES]
        assert text.count("Not run yet") == len(NAMES) - 2
        # The full budget is shown where there is one.
        assert "It took 22 steps" in text and "It took 11 steps" not in text
        assert "It took 33 steps" in text
        assert "nothing else" in text

    def test_links_lead_to_files_and_captions_name_the_budget(self, results, tmp_path):
        path = tmp_path / "top" / "REPORT.md"
        write_report(results, path)
        text = path.read_text()
        links = re.findall(r"\]\(([^)]+)\)", text)
        assert len(links) > 4
        for link in links:
            assert (path.parent / link).is_file(), link
        figures = re.findall(r"!\[.*\]\((.*)\)\n\n\*Budget `(\w+)`(.*)\*\n", text)
        assert len(figures) == 2
        for link, budget, caption in figures:
            assert f"/{budget}/" in link
            # No weights that are named play a part in ablations.
            assert ("weights `default" in caption) == ("/cost/" in link)

    def test_a_caption_says_where_time_is_missing(self, results, tmp_path):
        path = results / "full" / "cost" / "done.json"
        done = json.loads(path.read_text())
        for entries, words in (
            ({"seconds": 3.0, "seconds_are_all": False}, "at least 3 s on"),
            ({"seconds": 3.0, "seconds_are_all": True}, "`full`, 3 s on"),
        ):
            path.write_text(json.dumps(done | entries))
            assert words in report_text(results, tmp_path)[0]

    def test_done_by_an_earlier_version(self, results, tmp_path):
        """Its command named no weights where they were `default`."""
        path = results / "full" / "cost" / "done.json"
        done = json.loads(path.read_text())
        command = "python -m meta_training.experiments cost --budget=full"
        weights = {name: done["weights"][name] for name in ("name", "sha256")}
        path.write_text(json.dumps(done | {"command": command, "weights": weights}))
        write_report(results, tmp_path / "REPORT.md")
        again = json.loads(path.read_text())
        assert again["command"] == f"{command} --weights={weights['name']}"
        assert f"`{again['command']}`" in (tmp_path / "REPORT.md").read_text()
        assert again["weights"] == done["weights"]

    def test_what_has_no_budget_is_shown_without(self, results, tmp_path, request_of):
        imagenet = experiment("imagenet")
        run_experiment(imagenet, request_of(), tmp_path / "out")
        collect(tmp_path / "out", tmp_path / "results", ["imagenet"])
        text, shown = report_text(tmp_path / "results", tmp_path)
        assert shown == ["imagenet"] and "nothing else" not in text
        section = text.partition(f"## {imagenet.title}")[2].partition("\n## ")[0]
        assert "*Read on " in section
        assert "udget" not in section and "; weights `" not in section

    def test_new_words_need_no_new_run(self, results, tmp_path, monkeypatch):
        path = tmp_path / "top" / "REPORT.md"
        cost = experiment("cost")
        monkeypatch.setattr(type(cost), "claim", "Other words.")
        runs = cost.runs
        write_report(results, path)
        assert "Other words." in path.read_text() and cost.runs == runs
        folder = results / "full" / "cost"
        assert "Other words." in (folder / "paragraph.md").read_text()
        assert runner.read_done(folder)
        assert not runner.rewrite_paragraph(cost, folder)

    def test_does_not_show_what_is_damaged(self, results, tmp_path):
        (results / "full" / "cost" / "numbers.csv").write_text("steps\n99\n")
        path = tmp_path / "top" / "REPORT.md"
        write_report(results, path)
        assert "It took 11 steps" in path.read_text()


class TestCommittedResults:
    """`REPORT.md` and the results in the repository."""

    RESULTS = ROOT / "meta_training" / "results" / "experiments"
    FOLDERS = sorted(path.parent for path in RESULTS.glob("*/*/done.json"))

    def test_the_report_is_that_of_the_results(self):
        text, shown = report_text(self.RESULTS, ROOT)
        assert (ROOT / "REPORT.md").read_text(encoding="utf-8") == text
        assert shown == NAMES

    @pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
    def test_paragraphs_follow_from_the_csv_files(self, folder):
        done = runner.read_done(folder)
        assert done["budget"] == folder.parent.name
        found = experiment(folder.name)
        paragraph = (folder / "paragraph.md").read_text(encoding="utf-8")
        assert found.findings(folder, done["settings"]) in paragraph
        command = f"python -m meta_training.experiments {folder.name}"
        if found.has_budget:
            command += f" --budget={done['budget']}"
        if found.judges_weights:
            command += f" --weights={done['weights']['name']}"
        assert done["command"] == command


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


def test_meta_training_is_shared_by_settings_that_do_not_touch_it(
    tmp_path, weights, monkeypatch
):
    folders = []

    def remember(command, check):
        folders.append(pathlib.Path(command[-1].removeprefix("--job=")).parent)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(variant.subprocess, "run", remember)
    monkeypatch.setattr(variant, "load_seeds", lambda *_: [])

    def train(work, changes=None, training=None, name="whole"):
        settings = {"training": training or {"outer_steps": 4}, **(changes or {})}
        job = Job(settings, weights, tmp_path, tmp_path / work, tmp_path / "cache")
        variant.train_and_evaluate(
            job, HierarchicalRule(architecture(name)), "a b", [0]
        )
        return folders[-1], (job.work / sittings.SHARED).exists()

    first, shared = train("one")
    assert not shared
    # Other weights that are judged, and other draws.
    assert train("two", {"weights_sha256": "abc", "seeds": 9}) == (first, True)
    assert train("three", training={"outer_steps": 5})[0] != first
    assert train("four", name="attention added")[0] != first
    assert train("one")[0] == first


def test_a_variant_that_fails_is_named(tmp_path, weights, monkeypatch):
    commands = []

    def fail(command, check):
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(variant.subprocess, "run", fail)
    job = Job(
        {"training": {}}, weights, tmp_path, tmp_path / "work", tmp_path / "cache"
    )
    config = architecture("attention added")
    with pytest.raises(RuntimeError, match="status 3 for 'with attention'"):
        variant.train_and_evaluate(
            job, HierarchicalRule(config), "with attention", [4, 5]
        )
    (command,) = commands
    path = command[-1].removeprefix("--job=")
    with open(path, encoding="utf-8") as file:
        description = json.load(file)
    assert description["seeds"] == [4, 5]
    rule = trainable_optimizer(
        description["optimizer"], description["optimizer_settings"]
    )
    assert rule == HierarchicalRule(config)


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

        def measure(parameters, tensors, repetitions, weights="default"):
            return {way: figures(way, weights) for way in cost.WAYS}

        monkeypatch.setattr(cost, "_child", child)
        monkeypatch.setattr(cost, "_measure", measure)
        experiment("cost").run(job)
        assert len(measured) == 4
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
