"""Each number that is said, by another way from the same CSV."""

import re

import numpy as np
import pytest

from learned_optimizer import load_weights
from meta_training.experiments import cost
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.experiment import Job
from meta_training.optimizers import as_trained


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

        def child(module, optimizer, weights="default", **_):
            return figures(optimizer, weights)

        def measure(problem, repetitions, warm_ups, weights="default"):
            return {way: figures(way, weights) for way in cost.WAYS}

        monkeypatch.setattr(cost, "run_module", child)
        monkeypatch.setattr(cost, "measure", measure)
        experiment("cost").run(job)
        # Two training steps; two optimizers alone.
        assert len(measured) == 2 + 2
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
