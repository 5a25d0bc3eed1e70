"""Each number that is said, by another way from the same CSV."""

import math
import re
import statistics

import pytest

from meta_training.experiments.catalogue import experiment
from tests.meta_training.experiments_by_hand import cells, write_rows, write_runs


def test_earlier_optimizers(tmp_path):
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
def test_counts_are_those_of_what_was_run(name, tmp_path):
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
    assert "task set `gone`" in text and ("2 seeds" in text) == (name == "ablations")
