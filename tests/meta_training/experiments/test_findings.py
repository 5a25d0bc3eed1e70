"""What experiments say: numbers recomputed by hand, and the report."""

import json
import math
import re
import statistics

import pytest

from meta_training.experiments import runner
from meta_training.experiments.ablations import VARIANTS, WHOLE
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.report import report_text, write_report
from meta_training.experiments.runner import collect, run_experiment
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
        own = [experiment(name).title for name in NAMES]
        assert titles == [*own, "Inception V3 and ResNet V2"]
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
        command += f" --budget={done['budget']}"
        if found.evaluates_weights:
            command += f" --weights={done['weights']['name']}"
        assert done["command"] == command
