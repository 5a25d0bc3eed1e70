"""What a report says, recomputed from its results."""

import dataclasses
import math

import numpy as np
import pytest

from meta_training.evaluation import statistics, write_report
from tests.meta_training.evaluation.results_by_hand import many_tasks, result


def test_reports_say_where_the_best_rate_is_at_an_edge(tmp_path, few_bootstraps):
    losses = np.ones((3, 3, 2, 2))
    losses[1:, 2, 0] = 0.1
    losses[1:, 1, 1] = 0.1
    found = result(losses, rates=(1e-3, 1e-2, 1e-1))
    text = write_report([found], tmp_path, "").read_text()
    assert "Best at an edge of the grid of rates: Adam on task_0 (0.1)." in text
    learned = result(0.5 * losses[:, :1], (1e-3,), is_learned=True, optimizer="ours")
    text = write_report([learned, found], tmp_path, "").read_text()
    # Half the default's loss; at the best rates 0.05 or 0.5 over 0.1.
    assert "| ours | Adam | 0.50, 0.50 | 1.58, 2.75 | 5.00, 5.00 |" in text
    # At half the default's start from record 1 on; never at a tenth.
    share = (learned.steps[1] / learned.steps[-1]) ** np.array([1, 0.5, 0])
    cells = [f"{each:.2f}, {never}" for never, each in enumerate(share)]
    assert f"| ours | Adam | {' | '.join(cells)} |" in text


@pytest.fixture
def few_bootstraps(monkeypatch):
    monkeypatch.setattr(statistics, "_BOOTSTRAPS", 20)


@pytest.mark.parametrize("count", [9, 10, 30, 31])
def test_a_report_of_many_tasks(count, tmp_path, few_bootstraps):
    path = write_report(many_tasks(count), tmp_path, "the command")
    text = path.read_text()
    figures = {file.name for file in tmp_path.glob("*.png")}
    wanted = {"curves.png", "initial_rates_runs_a_weights.png"}
    if count > 9:
        wanted.add("tasks_runs_a_weights.png")
    assert figures == wanted
    assert all(f"![{name}]({name})" in text for name in wanted)
    assert "nan" not in text
    assert ("## Families" in text) == (count > 30)
    assert ("## Final loss of each task" in text) == (count <= 30)
    odd = sum(task % 3 == 2 for task in range(count))
    share = (count - odd) / count
    won = f"{share:.0%}"
    # Half the start is below whatever Adam has; untuned the "odd" end at twice it.
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("| runs/a/weights | Adam") and "%" in line
    ]
    assert line.count(f" {won} (") == 6
    assert f"| runs/a/weights, 0.001 | {won} | 2 | task_2 | 2 | 1 |" in text
    assert "| Adam, 0.001 | 100% | 1 | task_0 | 0.8 | 0.8 |" in text
    logs = (f"{share * math.log(0.8):.2f}" for share in (0.75, 1))
    cells = [f"{number} ({number}, {number})" for number in (*logs, "0.8")]
    assert f"| Adam, 0.001 | {' | '.join(cells)} |  |" in text
    if count <= 30:
        return
    # The trapezoid of log-losses 0, L, L over two steps is 0.75 L.
    numbers = [0.75 * math.log(ratio) for ratio in (0.5, 0.8, 2.0, 0.8)]
    learned, default, odd, _ = (f"{number:.2f}" for number in numbers)
    lines = [line for line in text.splitlines() if line.startswith(("| even", "| odd"))]
    assert len(lines) == 2
    even_cells, odd_cells = ([c.strip() for c in line.split("|")] for line in lines)
    assert even_cells[1:5] == ["even", "21", learned, default]
    assert odd_cells[1:5] == ["odd", "10", odd, default]
    # Few lines: thirty-one tasks are in the CSV.
    assert "| task_30 " not in text.split("## Initial rates")[0]


def test_reports_of_batch_normalised_tasks_have_the_loss_under_averages(
    tmp_path, few_bootstraps
):
    learned, adam, _ = many_tasks(3)
    assert (
        "Under running averages" not in write_report([adam], tmp_path, "").read_text()
    )
    evaluated = learned.losses.copy()
    evaluated[-2, 0, 1] *= 40
    evaluated[-1, 0, 1] *= 3
    changed = dataclasses.replace(learned, evaluation_losses=evaluated)
    text = write_report([changed, adam], tmp_path, "").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| task_1 | runs")]
    assert row == "| task_1 | runs/a/weights, 0.001 | 0.5 | 1.5 | 25 |"
