"""The experiments there are: names, claims, settings."""

import json
import re

import pytest

from meta_training.evaluate import find_tasks
from meta_training.experiments.catalogue import experiment, list_experiments
from meta_training.experiments.experiment import BUDGETS, register_experiment
from tests.meta_training.experiments_by_hand import NAMES, Counted, write_runs


def test_every_experiment_of_the_paper_exists():
    assert list_experiments() == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_settings_are_json_and_name_tasks_that_exist(name, budget, tmp_path):
    found = experiment(name)
    settings = found.settings(budget, seeds=7)
    assert json.loads(json.dumps(settings)) == settings
    assert settings.get("seeds", 7) == 7
    assert found.budgets[budget].get("seeds") != 7
    write_runs(tmp_path, ["whole, seed 0"], ["a_net"], [0.1, 0.001])
    assert found.describe(tmp_path, settings)
    if "sets" in settings:
        tasks = find_tasks(*settings["sets"], only=settings["tasks"] or ())
        assert len(tasks) == len(settings["tasks"] or tasks) > 0


def test_claims_are_the_papers_alone():
    """Nothing of weights of ours, and no conclusion of ours."""
    ours = "default-v|bootstrap|released-v|weights|should|tuned"
    for name in NAMES:
        assert not re.search(ours, experiment(name).claim), name
    inferred = {name for name in NAMES if experiment(name).inference}
    assert {"ablations", "cost", "initial_learning_rate"} <= inferred


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"name": "cost"}, "must be new"),
        ({"name": "all"}, "none of the command's words"),
        ({"budgets": {}}, "must have"),
    ],
)
def test_an_experiment_that_cannot_be_registered(changes, rule):
    with pytest.raises(ValueError, match=rule):
        register_experiment(type("Bad", (Counted,), changes))
