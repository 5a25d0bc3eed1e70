"""Each number that is said, by another way from the same CSV."""

import csv

import pytest

from meta_training.experiments.catalogue import experiment
from meta_training.experiments.experiment import Job
from tests.meta_training.experiments_by_hand import FOLDERS, cells, mean_of, write_runs


def test_against_baselines(tmp_path):
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
                other = dict(optimizer=line[0], task=task)
                by_rate = [mean_of(rows, column, **other, rate=rate) for rate in rates]
                untuned += own <= by_rate[1]
                tuned += own <= min(by_rate)
            wanted += [f"{untuned} (at 0.01)", str(tuned)]
        assert line == wanted
    own = mean_of(rows, "final_log_loss", optimizer="ours", rate=0.01)
    assert f"ours {own:.2f};" in text


@pytest.mark.slow
def test_baselines_are_run_beside_the_weights(tmp_path, weights):
    settings = {"sets": ["released"], "tasks": ["bowl_5"], "steps": 3, "seeds": 2}
    settings |= {"records": 2, "learning_rates": [0.001, 0.1]}
    job = Job(settings, weights, *(tmp_path / name for name in FOLDERS))
    job.folder.mkdir()
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


def test_initial_rates(tmp_path):
    tasks, rates = ["a_net", "b"], [0.001, 0.01, 0.1]
    rows = write_runs(tmp_path, ["ours", "Adam"], tasks, rates)
    settings = experiment("initial_learning_rate").settings("small")
    text = experiment("initial_learning_rate").findings(tmp_path, settings)
    assert [line[0] for line in cells(text)] == tasks
    for line in cells(text):
        wanted = [line[0]]
        for optimizer in ("ours", "Adam"):
            own = dict(optimizer=optimizer, task=line[0])
            losses = [mean_of(rows, "final_loss", **own, rate=rate) for rate in rates]
            wanted += [f"{min(losses):.3g}", f"{max(losses):.3g}"]
            wanted += [f"{max(losses) / min(losses):.3g}"]
        assert line == wanted
