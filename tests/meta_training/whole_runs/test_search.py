"""Whole runs of a small set of tasks: what members share, and searches that go on."""

import dataclasses
import os
import signal

import numpy as np
import pytest

from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import read_csv
from meta_training.optimizers import as_trained, load_trained
from meta_training.runs import LearnedRuns, TrainingLoop, draw_runs
from meta_training.tasks import register_task_set, task_set
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron
from meta_training.whole_runs import reference_runs, search
from meta_training.whole_runs.generations import RunConfig, WholeRuns, record_steps
from meta_training.whole_runs.reference import ReferenceTable
from meta_training.whole_runs.search import Search, SearchConfig, Terminated
from meta_training.whole_runs.truncated_gradients import TruncatedGradients
from tests.arrays import assert_equal
from tests.conftest import slow

HORIZONS = (12, 30)
WEIGHTS = as_trained(load_weights("default"))


@register_task_set("whole_runs_few")
def few():
    shape = {"batch_size": 8, "rows": 32}
    return [
        Perceptron(4, (5,), 3, **shape),
        Perceptron(4, (5,), 3, activation="tanh", **shape),
        Quadratic(3),
    ]


def run_alone(task, draw, draws, steps, arguments):
    """`[steps, 1]` losses of one draw by a loop of its own."""
    runs = LearnedRuns(WEIGHTS.optimizer, task.parameter_shapes, 1)
    arguments = {**arguments, "meta_parameters": WEIGHTS.meta_parameters}
    return TrainingLoop(task, runs, [draw], draws)(
        np.arange(steps + 1), arguments
    ).losses


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "table.npz"
    reference_runs.compute_table(few(), path, HORIZONS, (1e-2, 1e-1), 2)
    return path


OPTIONS = RunConfig(families=2, horizons=HORIZONS)


@pytest.fixture(scope="module")
def shared_runs():
    made = {}

    def make(tasks, optimizer, table, options, threads=1):
        key = (tuple(tasks), optimizer, options)
        if key not in made:
            made[key] = WholeRuns(tasks, optimizer, table, options, threads)
        return made[key]

    return make


@pytest.fixture(scope="module")
def shared_gradients():
    made = []

    def make(tasks, optimizer, seed):
        if not made:
            gradients = TruncatedGradients(tasks[:1], optimizer, seed)
            made.extend([gradients, gradients.state()])
        made[0].restore(made[1])
        return made[0]

    return make


@pytest.fixture
def config(reference, shared_runs, shared_gradients, monkeypatch):
    """Settings of searches that share their compiled programs, as no two must."""
    monkeypatch.setattr(search, "WholeRuns", shared_runs)
    monkeypatch.setattr(search, "TruncatedGradients", shared_gradients)
    options = dict(task_set="whole_runs_few", members=4, parametrisation="scales")
    runs = RunConfig(families=1, horizons=HORIZONS)
    return SearchConfig(**options, reference=str(reference), runs=runs)


def test_the_table_holds_the_best_rate_of_each_horizon(reference, tmp_path):
    table = ReferenceTable.load(reference)
    assert set(table.tasks) == {task.name for task in few()}
    assert table.losses.shape == (3, 2, 2, 17) and np.all(table.losses > 0)
    # Nothing here is normalised.
    np.testing.assert_array_equal(table.losses, table.evaluation_losses)
    # Once more with one of the rates: never lower at the end.
    for rate in (1e-2, 1e-1):
        path = tmp_path / f"{rate}.npz"
        other = reference_runs.compute_table(few()[:1], path, HORIZONS, (rate,), 2)
        best = table.losses[table.tasks.index(few()[0].name)]
        assert np.all(other.losses[0, :, :, -1] >= best[..., -1] * (1 - 1e-5))
        same = table.rates[0] == np.float32(rate)
        np.testing.assert_allclose(other.losses[0][same], best[same], rtol=1e-4)


def test_what_is_done_is_not_done_again(reference, monkeypatch):
    def never(*_):
        raise AssertionError("a row was computed again")

    monkeypatch.setattr(reference_runs._ReferenceRuns, "row", never)
    again = reference_runs.compute_table(few(), reference, HORIZONS, (1e-2, 1e-1), 2)
    np.testing.assert_array_equal(again.losses, ReferenceTable.load(reference).losses)
    with pytest.raises(ValueError, match=r"horizons \[12\]. Received: .* \[12, 30\]"):
        reference_runs.compute_table(few(), reference, (12,))


def test_members_share_every_draw_and_scores_are_those_of_plain_runs(reference):
    table = ReferenceTable.load(reference)
    runs = WholeRuns(few(), WEIGHTS.optimizer, table, OPTIONS)
    other = {name: 0.5 * value for name, value in WEIGHTS.meta_parameters.items()}
    members = [WEIGHTS.meta_parameters, other, WEIGHTS.meta_parameters]
    first, second = (runs.draw(np.random.default_rng(seed)) for seed in (0, 5))
    scores = runs.scores(first, members)
    assert scores.shape == (3, 3)
    np.testing.assert_array_equal(scores[0], scores[2])
    assert not np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores, runs.scores(second, members))
    np.testing.assert_array_equal(scores, runs.scores(first, members))
    # The same by a loop of its own, on tasks and parameters rescaled by hand.
    column = 0
    for drawn in first.values():
        for run, task in enumerate(drawn.draws.tasks):
            arguments = {k: v[run : run + 1] for k, v in drawn.arguments.items()}
            losses = run_alone(task, run, drawn.draws, drawn.horizon, arguments)[:, 0]
            marks = record_steps(drawn.horizon)
            is_known = drawn.arguments["total_steps"][run] > 0
            curves = marks, losses[marks], losses[marks]
            wanted = table.score(task.name, drawn.horizon, is_known, *curves)
            assert scores[0, column] == pytest.approx(wanted, abs=1e-3)
            column += 1


def test_rescaled_runs_are_those_of_a_rescaled_task(reference):
    """Parameters three times as large, of a task that divides them by three."""

    @dataclasses.dataclass(frozen=True)
    class Larger(Quadratic):
        def objective(self, parameters, instance):
            return super().objective([parameters[0] / 3.0], instance)

        def sample_parameters(self, generator):
            return [3.0 * value for value in super().sample_parameters(generator)]

        @property
        def name(self):
            # Draws follow from the name.
            return Quadratic(3).name

    losses = []
    for task, scale in ((Quadratic(3), 3.0), (Larger(3), 1.0)):
        arguments = {
            "log_learning_rate": np.full(1, -4.0, np.float32),
            "log_scale": np.full((1, 1), np.log(scale), np.float32),
        }
        losses.append(run_alone(task, 0, draw_runs([task], [0], 20), 20, arguments))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert losses[0][-1] < losses[0][0]


# A program for meta-gradients takes long to compile.
@pytest.mark.parametrize(
    "estimator", ["cma", "evolution_strategies", slow("guided_evolution_strategies")]
)
def test_a_search_that_goes_on_ends_as_one_that_never_stopped(
    config, estimator, tmp_path
):
    config = dataclasses.replace(config, estimator=estimator)
    whole = Search(config, tmp_path / "whole")
    whole.train(3)
    Search(config, tmp_path / "parts").train(1)
    # A row that the checkpoint does not know of, as after a crash.
    with open(tmp_path / "parts" / "search.csv", "a") as file:
        file.write("1,1,1,1,1,1,1,1,1\n2,3")
    # Killed between the checkpoint and its weights.
    (tmp_path / "parts" / "weights.npz").unlink()
    resumed = Search(config, tmp_path / "parts")
    assert load_trained(tmp_path / "parts" / "weights.npz").card["outer_step"] == 1
    assert resumed.generation == 1
    resumed.train(3)
    np.testing.assert_array_equal(whole.estimator.center, resumed.estimator.center)
    assert np.any(whole.estimator.center != 0)
    curves = [read_csv(tmp_path / name / "search.csv") for name in ("whole", "parts")]
    assert len(curves[0]) == 3
    for first, second in zip(*curves, strict=True):
        assert first | {"seconds": 0} == second | {"seconds": 0}
    # In the first generation the center is the start.
    assert curves[0][0]["start_score"] == curves[0][0]["center_score"]
    found = load_trained(tmp_path / "parts" / "weights.npz")
    assert_equal(found.meta_parameters, whole.weights.meta_parameters)
    assert found.card["search"]["members"] == 4
    assert found.card["inner_steps"] == curves[0][-1]["inner_steps"]


def test_a_search_ends_when_its_steps_are_spent_or_its_halves_disagree(
    config, tmp_path, monkeypatch
):
    short = dataclasses.replace(config, inner_steps=1)
    run = Search(short, tmp_path / "a")
    run.train()
    assert run.generation == 1
    longer = Search(dataclasses.replace(short, inner_steps=10**6), tmp_path / "a")
    monkeypatch.setattr(search, "agreement", lambda *_: -0.1)
    longer._agreements = [-0.5] * 20
    longer.train()
    assert longer.generation == 1


def test_sigterm_leaves_the_last_generation(config, tmp_path, monkeypatch):
    run = Search(config, tmp_path / "a")
    run.train(1)
    before = signal.getsignal(signal.SIGTERM)
    draw = WholeRuns.draw

    def terminate(self, generator):
        os.kill(os.getpid(), signal.SIGTERM)
        return draw(self, generator)

    monkeypatch.setattr(WholeRuns, "draw", terminate)
    with pytest.raises(Terminated, match="generation 1 was left"):
        run.train(2)
    assert signal.getsignal(signal.SIGTERM) is before
    assert Search(config, tmp_path / "a").generation == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"members": 6}, r"members \(4 there, 6 now\)"),
        ({"runs": OPTIONS}, r"runs \("),
        ({"sigma": 0.2}, r"sigma \(0.1 there, 0.2 now\)"),
    ],
)
def test_a_search_goes_on_under_its_settings_alone(config, changes, message, tmp_path):
    config.write_or_verify(tmp_path)
    with pytest.raises(ValueError, match=message):
        Search(dataclasses.replace(config, **changes), tmp_path)
    Search(dataclasses.replace(config, inner_steps=7, threads=2), tmp_path)


def test_bad_input_leaves_the_folder_as_it_was(config, tmp_path):
    with pytest.raises(ValueError, match="members must be a whole number, 2 or more"):
        dataclasses.replace(config, members=1)
    with pytest.raises(ValueError, match="low learning rate be at most"):
        RunConfig(low_learning_rate=1.0)
    no_row = dataclasses.replace(config, task_set="default_networks")
    with pytest.raises(ValueError, match="every task must have a row"):
        Search(no_row, tmp_path / "a")
    other = dataclasses.replace(config, runs=RunConfig(horizons=(13,)))
    with pytest.raises(ValueError, match="every horizon must have a row"):
        Search(other, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="must be new, empty, or that of a run"):
        Search(config, tmp_path)
    assert len(task_set("whole_runs_few")) == 3
