"""What experiments say: numbers recomputed by hand, and the report."""

import csv
import json
import math
import re
import statistics

import pytest

from learned_optimizer import load_weights
from meta_training.experiments import imagenet_networks, runner
from meta_training.experiments.ablations import VARIANTS, WHOLE
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.pictures import save_figure
from meta_training.experiments.report import report_text, write_report
from meta_training.experiments.runner import Request, collect, run_experiment
from meta_training.optimizers import as_trained
from tests.meta_training.experiments_by_hand import (
    NAMES,
    ROOT,
    Counted,
    cells,
    mean_of,
    write_rows,
    write_runs,
)


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
        title = " ".join(titles[0].split())
        assert title == f"resnet v2 50 generated images, {images}"
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

    def test_another_schedule_is_told_and_shares_the_panel(
        self, results, tmp_path, request_of, monkeypatch
    ):
        for schedule, loss in (("usual", 3.5), ("cosine", 3.25)):
            run_folder = results / schedule / "resnet_v2_50_hierarchical_rnn_seed0"
            run_folder.mkdir(parents=True)
            settings = {
                "model": "resnet_v2_50",
                "optimizer": "hierarchical_rnn",
                "schedule": schedule,
                "dataset": "generated",
                "image_size": 48,
            }
            (run_folder / "settings.json").write_text(json.dumps(settings))
            (run_folder.parent / "curves.csv").write_text(
                self.HEADER + f"resnet_v2_50,hierarchical_rnn,,0,1,1,{loss},0.5,abc\n"
            )
        drawn = []

        def save(figure, *arguments):
            for axis in figure.axes:
                lines, names = axis.get_legend_handles_labels()
                styles = [line.get_linestyle() for line in lines]
                drawn.append(dict(zip(names, styles, strict=True)))
            save_figure(figure, *arguments)

        monkeypatch.setattr(imagenet_networks, "save_figure", save)
        run_experiment(experiment("imagenet"), request_of(), tmp_path / "out")
        text = (tmp_path / "out" / "imagenet" / "paragraph.md").read_text()
        for told in (
            "none to set | 1 | 1 | 3.5 |",
            "none to set; half a cosine to 0 | 1 | 1 | 3.25 |",
        ):
            assert f"| hierarchical_rnn | {told}" in text
        (names,) = drawn
        assert names == {"hierarchical rnn": "-", "hierarchical rnn, cosine": "--"}

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
