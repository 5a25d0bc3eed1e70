"""Meta-training in experiments: task sets, seeds, starts."""

import numpy as np

from meta_training.experiments import training
from meta_training.experiments.ablations import architecture
from meta_training.optimizers import HierarchicalRule, load_trained
from meta_training.tasks import task_set


def test_the_sets_of_the_full_budget_have_all_kinds():
    def kinds(name):
        return {task.family for task in task_set(name)}

    assert kinds("experiments") == kinds("default_networks")
    assert kinds("released_families") == kinds("released")
    assert len(task_set("released_families")) == len(kinds("released"))


def test_each_seed_is_a_run_and_a_start_without_its_card_is_drawn_again(
    tmp_path, monkeypatch
):
    started = []

    class Recorded:
        def __init__(self, config, folder):
            started.append(
                (folder.name, config.seed, load_trained(config.init_weights))
            )

        def train(self):
            pass

    monkeypatch.setattr(training, "Trainer", Recorded)
    monkeypatch.setattr(training, "load_seeds", lambda *_: [])
    rule = HierarchicalRule(architecture("no tensor and global level"))
    for _ in range(2):
        training.meta_train(rule, "a", [0, 1], training.TRAINING["small"], tmp_path)
        # What a kill between the two files leaves.
        (tmp_path / "start1.json").unlink()
    assert [start[:2] for start in started] == [("seed0", 0), ("seed1", 1)] * 2
    for (*_, one), (*_, other) in zip(started[:2], started[2:], strict=True):
        for name, value in one.meta_parameters.items():
            np.testing.assert_array_equal(value, other.meta_parameters[name])
