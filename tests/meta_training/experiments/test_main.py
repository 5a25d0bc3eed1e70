"""The command line of experiments."""

import functools

import pytest
from absl import app

from meta_training.experiments import __main__ as command
from meta_training.experiments import runner
from meta_training.experiments.catalogue import experiment
from tests.conftest import run_python
from tests.meta_training.experiments_by_hand import NAMES


@pytest.mark.parametrize("name", ["nonsense", "", "all of them"])
def test_an_unknown_experiment_is_refused(name, capsys):
    with pytest.raises(ValueError, match="earlier_optimizers.*Received: "):
        experiment(name)
    with pytest.raises(app.UsageError, match=".*".join(NAMES)):
        command.main(["experiments", name])
    with pytest.raises(app.UsageError, match="Received: none"):
        command.main(["experiments"])


@pytest.mark.slow
def test_experiments_run_from_the_command_line_and_not_again(tmp_path):
    names = ["earlier_optimizers", "initial_learning_rate"]
    arguments = [
        f"--output={tmp_path / 'output'}",
        f"--results={tmp_path / 'results'}",
        f"--report={tmp_path / 'REPORT.md'}",
    ]

    run = functools.partial(run_python, "-m", "meta_training.experiments", *arguments)
    first = run(*names, "report")
    assert first.returncode == 0, first.stderr[-3000:]
    for name in names:
        folder = tmp_path / "output" / name
        assert runner.read_done(folder)
        assert sum(path.stat().st_size > 5000 for path in folder.glob("*.png")) == 1
    text = (tmp_path / "REPORT.md").read_text()
    assert text.count("\n*Budget `small`, ") == 2
    assert "coordinate-wise RNN" in text
    again = run(*names)
    assert again.returncode == 0 and again.stderr.count("done before") == 2
    trained = "output/work/earlier_optimizers/*/*/seed0/weights.npz"
    assert len(list(tmp_path.glob(trained))) == 2
    unwritable = run("all", f"--results={tmp_path / 'REPORT.md' / 'below'}")
    assert unwritable.returncode == 1
    assert "Traceback" not in unwritable.stderr
