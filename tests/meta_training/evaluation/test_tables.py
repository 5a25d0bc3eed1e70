"""Rates that are read from the runs of other tasks."""

import dataclasses

import numpy as np
import pytest

from learned_optimizer.utils.csv_log import read_csv
from meta_training.evaluation import statistics
from meta_training.evaluation.tables import best_single_rates, write_tables
from tests.meta_training.evaluation.results_by_hand import result


def test_a_rate_chosen_on_other_tasks_is_read_from_their_runs(tmp_path):
    losses = np.ones((3, 2, 2, 1))
    losses[1:, 0] = [[0.001], [0.5]]
    losses[1:, 1] = [[0.9], [0.4]]
    write_tables([result(losses)], tmp_path)
    assert best_single_rates(tmp_path / "runs.csv") == {"Adam": 1e-3}
    # On these tasks the other rate would be better.
    chosen = result(losses[:, :, 1:], single_rate=1e-3)
    choice = statistics.choices(chosen, "final loss")[1]
    assert choice.name == "rate of other tasks" and choice.rates.tolist() == [0]
    with pytest.raises(ValueError, match="must come from the runs.csv .* Received:"):
        best_single_rates(tmp_path / "curves.csv")


def test_runs_say_how_far_running_averages_are_from_batches(tmp_path):
    """At the records of the last three quarters, here the last two of three."""
    losses = np.ones((3, 1, 2, 1))
    found = result(losses, rates=(1e-3,))
    evaluation_losses = losses.copy()
    evaluation_losses[:, 0, 1, 0] = [100, 5, 2]
    found = dataclasses.replace(found, evaluation_losses=evaluation_losses)
    write_tables([found], tmp_path)
    plain, normalised = read_csv(tmp_path / "runs.csv", ("optimizer", "family", "task"))
    assert np.isnan(plain["largest_evaluation_ratio"])
    assert normalised["final_evaluation_loss"] == 2
    assert normalised["largest_evaluation_ratio"] == pytest.approx(5 / 1.55, 1e-4)
