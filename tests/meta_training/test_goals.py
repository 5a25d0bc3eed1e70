"""The page of what was asked and what came out."""

import pytest
from absl import app

from meta_training import goals
from tests.commands import run_command
from tests.project.test_numbers import RESULTS

REPORT = """# Evaluation

    python -m meta_training.evaluate --steps=50000

## Final against best

Words.

| optimizer | worst ratio |
|---|---:|
| a | {} |

## Figures

| b |
"""


def test_the_page_that_ships_follows_from_its_files():
    for path in RESULTS.glob("*/goals.md"):
        assert path.read_text(encoding="utf-8") == goals.page(path.parent.name)


def test_what_was_run_and_what_was_not(tmp_path):
    for name in ("a-v1/long", "a-v1/final", "whole_runs"):
        (tmp_path / name).mkdir(parents=True)
    final = tmp_path / "a-v1" / "final" / "report.md"
    table = "| a | b |\n|---|---|\n"
    ratios = f"# Evaluation\n\n    python\n\n## Ratios of final losses\n\n{table}"
    final.write_text(ratios + "| a-v1 | Adam |\n")
    (tmp_path / "a-v1" / "long" / "report.md").write_text(REPORT.format(1.25))
    rows = [f"{i},{100 * i},{-1 + i},{-0.5 + (i if i < 4 else 3)}" for i in range(8)]
    rows = ["generation,inner_steps,start_score,center_score", *rows, ""]
    (tmp_path / "whole_runs" / "search_x.csv").write_text("\n".join(rows))
    (tmp_path / "narrow.csv").write_text(
        "optimizer,seed,step,training_loss,validation_loss,top_1\n"
        "a,0,100,4,,\na,0,200,3.5,2.5,0.25\na,1,200,3,2,0.5\n"
    )
    text = goals.page("a-v1", tmp_path, tmp_path / "narrow.csv")
    assert "| a | 1.25 |" in text and "| b |" not in text
    assert text.count("Not run.") == 4
    # The rule by hand was not among those compared; then it is.
    assert "| a-v1 | Adam |" not in text
    final.write_text(ratios + "| a-v1 | Adam |\n| a-v1 | by_hand |\n")
    text = goals.page("a-v1", tmp_path, tmp_path / "narrow.csv")
    assert f"{table}| a-v1 | by_hand |\n" in text
    # Center less start is 0.5 four times, then -0.5, -1.5, -2.5, -3.5.
    assert "| search_x | 3e+02 | 0.500 | 0.000 |\n" in text
    assert "| search_x | 7e+02 | -3.000 | 0.500 |\n" in text
    narrow = ["| a | 0 | 3.500 | 2.500 | 25.0% |", "| a | 1 | 3.000 | 2.000 | 50.0% |"]
    assert "\n".join(narrow) in text


def test_an_unknown_name_is_refused():
    with pytest.raises(app.UsageError, match="Received: 'default-v99'"):
        run_command(goals, "--name=default-v99")
