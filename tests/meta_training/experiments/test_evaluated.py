"""What an experiment reads of its runs."""

from meta_training.experiments.evaluated import RunTable
from tests.meta_training.experiments_by_hand import write_rows, write_runs


def test_each_optimizer_has_its_own_default_rate(tmp_path):
    defaults = {"Adam": 0.1, "SGD momentum": 1.0}
    rows = write_runs(tmp_path, defaults, ["net", "bowl"], list(defaults.values()))
    for row in rows:
        row["is_default_rate"] = int(row["rate"] == defaults[row["optimizer"]])
    write_rows(tmp_path, rows)
    table = RunTable(tmp_path)
    assert {name: table.default_rate(name) for name in defaults} == defaults
