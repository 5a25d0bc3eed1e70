"""Meta-training in experiments: task sets, seeds, starts, processes of their own."""

import subprocess
import sys
import time
import types

import pytest

from meta_training.experiments import training
from meta_training.experiments.ablations import architecture
from meta_training.experiments.experiment import SHARED_TRAINING, Job
from meta_training.optimizers import HierarchicalRule, load_trained
from meta_training.tasks import task_set
from tests.arrays import assert_equal
from tests.meta_training.experiments_by_hand import FOLDERS


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
            start = load_trained(config.init_weights)
            started.append((folder.name, config.seed, start))

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
    starts = [start.meta_parameters for *_, start in started]
    assert_equal(starts[2:], starts[:2])


class Ended:
    """A process that ends at once, with the status that its class has."""

    exitcode = 0

    def __init__(self, target, args):
        self.started.append(args)

    def start(self):
        pass

    def join(self):
        pass


@pytest.fixture
def processes(monkeypatch):
    """The class of processes of variants; `started` has their arguments."""
    found = type("Process", (Ended,), {"started": []})
    monkeypatch.setattr(
        training.multiprocessing,
        "get_context",
        lambda method: types.SimpleNamespace(Process=found),
    )
    monkeypatch.setattr(training, "load_seeds", lambda *_: [])
    return found


def test_meta_training_is_shared_by_settings_that_do_not_touch_it(
    tmp_path, weights, processes
):
    def train(work, changes=None, outer_steps=4, name="whole"):
        settings = {"training": {"outer_steps": outer_steps}, **(changes or {})}
        job = Job(settings, weights, tmp_path, tmp_path / work, tmp_path / "cache")
        rule = HierarchicalRule(architecture(name))
        training.train_and_evaluate(job, rule, "a b", [0])
        _, _, _, _, folder, _ = processes.started[-1]
        return folder, (job.work / SHARED_TRAINING).exists()

    first, shared = train("one")
    assert not shared
    # Other weights that are judged, and other draws.
    assert train("two", {"weights_sha256": "abc", "seeds": 9}) == (first, True)
    assert train("three", outer_steps=5)[0] != first
    assert train("four", name="attention added")[0] != first
    assert train("one")[0] == first


def test_a_variant_that_fails_is_named(tmp_path, weights, processes):
    processes.exitcode = 3
    job = Job({"training": {}}, weights, *(tmp_path / name for name in FOLDERS))
    rule = HierarchicalRule(architecture("attention added"))
    with pytest.raises(RuntimeError, match="status 3 for 'with attention'"):
        training.train_and_evaluate(job, rule, "with attention", [4, 5])
    ((_, trained, label, seeds, _, _),) = processes.started
    assert (trained, label, seeds) == (rule, "with attention", [4, 5])


def test_a_variant_ends_with_its_parent(tmp_path):
    """A process that is killed takes its child along, which would sleep for long."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, pathlib, sys, threading, time\n"
        "from meta_training.experiments.training import _end_with_parent\n"
        "def child(path):\n"
        "    threading.Thread(target=_end_with_parent, daemon=True).start()\n"
        "    while True:\n"
        "        pathlib.Path(path).write_text(str(time.time()))\n"
        "        time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    process = context.Process(target=child, args=(sys.argv[1],))\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    beat = tmp_path / "beat"
    parent = subprocess.Popen([sys.executable, script, beat])
    end = time.monotonic() + 120
    while not beat.exists() and time.monotonic() < end:
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    time.sleep(2)
    last = beat.read_text()
    time.sleep(1)
    assert beat.read_text() == last
