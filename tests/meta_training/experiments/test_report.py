"""`REPORT.md`: of made-up results, and of those in the repository."""

import json
import re

import pytest

from meta_training.experiments import runner
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.report import report_text, write_report
from meta_training.experiments.runner import collect, run_experiment
from tests.meta_training.experiments_by_hand import NAMES, ROOT, Counted


@pytest.fixture
def results(tmp_path, request_of, monkeypatch):
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


def test_a_report_has_every_experiment(results, tmp_path):
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


def test_links_lead_to_files_and_captions_name_the_budget(results, tmp_path):
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


def test_a_caption_says_where_time_is_missing(results, tmp_path):
    path = results / "full" / "cost" / "done.json"
    done = json.loads(path.read_text())
    for entries, words in (
        ({"seconds": 3.0, "seconds_are_all": False}, "at least 3 s on"),
        ({"seconds": 3.0, "seconds_are_all": True}, "`full`, 3 s on"),
    ):
        path.write_text(json.dumps(done | entries))
        assert words in report_text(results, tmp_path)[0]


def test_new_words_need_no_new_run(results, tmp_path, monkeypatch):
    path = tmp_path / "top" / "REPORT.md"
    cost = experiment("cost")
    monkeypatch.setattr(type(cost), "claim", "Other words.")
    runs = cost.runs
    write_report(results, path)
    assert "Other words." in path.read_text() and cost.runs == runs
    folder = results / "full" / "cost"
    assert "Other words." in (folder / "paragraph.md").read_text()
    assert runner.read_done(folder)


def test_a_report_does_not_show_what_is_damaged(results, tmp_path):
    (results / "full" / "cost" / "numbers.csv").write_text("steps\n99\n")
    path = tmp_path / "top" / "REPORT.md"
    write_report(results, path)
    assert "It took 11 steps" in path.read_text()


RESULTS = ROOT / "meta_training" / "results" / "experiments"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/*/done.json"))


def test_the_report_of_the_repository_is_that_of_its_results():
    text, shown = report_text(RESULTS, ROOT)
    assert (ROOT / "REPORT.md").read_text(encoding="utf-8") == text
    assert shown == NAMES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_paragraphs_follow_from_the_csv_files(folder):
    done = runner.read_done(folder)
    assert done["budget"] == folder.parent.name
    found = experiment(folder.name)
    paragraph = (folder / "paragraph.md").read_text(encoding="utf-8")
    assert paragraph == runner.paragraph(found, done, folder)
    command = f"python -m meta_training.experiments {folder.name}"
    command += f" --budget={done['budget']}"
    if found.evaluates_weights:
        command += f" --weights={done['weights']['name']}"
    assert done["command"] == command
