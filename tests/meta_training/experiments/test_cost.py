"""Each number that is said, by another way from the same CSV."""

import re

import pytest

from learned_optimizer import load_weights
from meta_training.experiments import cost
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.experiment import Job
from meta_training.optimizers import as_trained
from tests.arrays import assert_equal
from tests.meta_training.experiments_by_hand import FOLDERS


def test_cost(tmp_path):
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


SETTINGS = dict(batch_sizes=[2], width=1, parameters=[50], tensors=2, repetitions=1)


@pytest.fixture
def job(tmp_path):
    judged = as_trained(load_weights("bootstrap-v1"))
    job = Job(SETTINGS, judged, *(tmp_path / name for name in FOLDERS))
    job.folder.mkdir()
    job.work.mkdir()
    return job


def test_the_weights_that_are_judged_are_measured(job, monkeypatch):
    measured = []

    def figures(way, weights):
        measured.append(load_weights(weights).to_flat())
        columns = (*cost._BATCH_COLUMNS, *cost._PARAMETER_COLUMNS)
        return {**dict.fromkeys(columns, 7), "optimizer": way}

    def child(module, optimizer, weights="default", **_):
        return figures(optimizer, weights)

    def measure(problem, repetitions, warm_ups, weights="default"):
        return {way: figures(way, weights) for way in cost.WAYS}

    monkeypatch.setattr(cost, "run_module", child)
    monkeypatch.setattr(cost, "measure", measure)
    experiment("cost").run(job)
    # Two training steps; two optimizers alone.
    assert_equal(measured, [load_weights("bootstrap-v1").to_flat()] * (2 + 2))
    text = experiment("cost").findings(job.folder, job.settings)
    assert len(re.findall(r"^\| 7 \|", text, re.MULTILINE)) == 2


@pytest.mark.slow
def test_the_experiment_runs(job):
    experiment("cost").run(job)
    text = experiment("cost").findings(job.folder, job.settings)
    rows = [line for line in text.splitlines() if re.match(r"\| (2|50) \|", line)]
    assert len(rows) == 2
    for row in rows:
        assert all(float(cell) > 0 for cell in row.split("|")[2:-1])
    assert (job.folder / "cost.png").stat().st_size > 5000
