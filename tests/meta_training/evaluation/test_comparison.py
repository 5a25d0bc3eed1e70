"""Weights beside baselines: what is run, what is cached, what is refused."""

import csv
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule.config import Config
from learned_optimizer.weights import Weights, fresh_weights, load_weights
from meta_training.evaluate import find_tasks
from meta_training.evaluation import comparison as evaluation
from meta_training.evaluation import statistics, write_report
from meta_training.evaluation.comparison import EvaluationConfig, evaluate
from meta_training.runs import TrainingLoop
from meta_training.tasks.base import Task
from meta_training.tasks.released.algebraic import Bowl, Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron
from tests.meta_training.evaluation.results_by_hand import result

NETWORK = Perceptron(6, (7, 5), 3, rows=50, batch_size=8)


def test_weights_that_take_a_horizon_run_with_it_too(tmp_path):
    settings = EvaluationConfig(steps=10, seeds=1, records=4, horizon=True)
    weights = [load_weights("default-v3"), fresh_weights(seed=0)]
    results = evaluate(weights, [Bowl(1.0)], settings, tmp_path, baselines=())
    names = [one.optimizer for one in results]
    assert names == ["default-v3", "default-v3, horizon known", "fresh"]
    assert not np.array_equal(results[0].losses, results[1].losses)


def test_evaluation_writes_a_report_and_reuses_the_baselines(tmp_path):
    tasks = [NETWORK, Bowl(1.0), Bowl(10.0, noise_stdev=0.1)]
    rates = dict(learning_rates=(1e-3, 1e-2, 1e-1), initial_rates=(1e-1,))
    settings = EvaluationConfig(steps=12, seeds=2, records=6, **rates)
    shipped = load_weights("bootstrap-v1")
    other = fresh_weights(seed=1)
    messages = []
    arguments = (tasks, settings, tmp_path / "cache")
    baselines = ("Adam", "Schedule-free AdamW")
    options = dict(baselines=baselines, log=messages.append)
    evaluate([shipped], *arguments, **options)
    assert not any("cache" in message for message in messages)
    messages.clear()
    results = evaluate([shipped, other], *arguments, **options)
    anew = [message for message in messages if "from the cache" not in message]
    assert anew and all(message.startswith("fresh: ") for message in anew)
    assert [one.optimizer for one in results] == [shipped.name, "fresh", *baselines]
    for one in results:
        assert one.losses.shape[1:] == (len(one.rates), 3, 2)
        assert one.rates[one.default_index] == pytest.approx(one.default_rate)
        # Every optimizer of a seed has the same start.
        np.testing.assert_allclose(one.losses[0, 0], results[0].losses[0, 0], rtol=1e-6)
    # Each task has the losses of its own: the stiffer bowl starts higher.
    assert np.all(results[0].losses[0, 0, 2] != results[0].losses[0, 0, 1])

    path = write_report(results, tmp_path, "the command")
    text = path.read_text()
    for name in ("curves.png", f"initial_rates_{shipped.name}.png"):
        assert (tmp_path / name).stat().st_size > 5000 and name in text
    assert "the command" in text and "nan" not in text
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * (2 * 2 + 3 + 4)  # The default rate of one is added.
    last = rows[-1]
    loss = results[-1].losses[-1, -1, -1, -1]
    assert float(last["final_loss"]) == pytest.approx(loss, rel=1e-5)


def test_cache_keys_hold_what_is_run(tmp_path):
    settings = EvaluationConfig(steps=10, seeds=2, records=6, learning_rates=(1e-3,))
    shipped = load_weights("bootstrap-v1")
    config = dataclasses.replace(shipped.config, max_log_learning_rate=-9.0)
    messages = []
    for weights, baselines, changes in (
        ([], ["SGD momentum"], {}),
        ([], ["Adam"], {}),
        ([shipped], [], {}),
        ([dataclasses.replace(shipped, config=config)], [], {}),
        ([], ["Adam"], dict(steps=11)),
        ([], ["Adam"], dict(seeds=1)),
        ([], ["Adam"], dict(learning_rates=(1e-2,))),
        ([], ["Adam"], dict(records=4)),
    ):
        changed = dataclasses.replace(settings, **changes)
        arguments = (weights, [Bowl(1.0)], changed, tmp_path, baselines)
        evaluate(*arguments, messages.append)
        assert not any("cache" in message for message in messages)
    evaluate(*arguments, messages.append)
    assert "from the cache" in messages[-1]


def test_a_damaged_cache_is_run_again(tmp_path):
    arguments = dict(
        weights=[],
        tasks=[Bowl(1.0)],
        settings=EvaluationConfig(steps=2, seeds=1, learning_rates=(1e-2,)),
        cache=tmp_path,
        baselines=["Adam"],
    )
    (first,) = evaluate(**arguments)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    (second,) = evaluate(**arguments)
    np.testing.assert_array_equal(first.losses, second.losses)


def test_weights_of_one_optimizer_share_a_compilation(tmp_path, monkeypatch):
    config = Config(level_sizes=(4,), gradient_timescales=2)
    weights = [
        dataclasses.replace(fresh_weights(config, seed=seed), name=f"seed {seed}")
        for seed in (0, 1)
    ]
    arguments = ([Bowl(1.0)], EvaluationConfig(steps=9, seeds=1, records=4))
    alone = [
        evaluate([one], *arguments, tmp_path / one.name, baselines=())[0]
        for one in weights
    ]
    assert np.any(alone[0].losses != alone[1].losses)
    made = []

    class CountedLoop(TrainingLoop):
        def __init__(self, *loop_arguments):
            made.append(loop_arguments)
            super().__init__(*loop_arguments)

    monkeypatch.setattr(evaluation, "TrainingLoop", CountedLoop)
    together = evaluate(weights, *arguments, tmp_path / "together", baselines=())
    assert len(made) == 1
    for found, wanted in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found.losses, wanted.losses)


def test_large_groups_are_divided_the_same_for_all(monkeypatch):
    tasks = [Bowl(float(number)) for number in range(1, 8)] + [Quadratic(5)]
    assert [len(c) for c in evaluation.chunk_tasks(tasks, EvaluationConfig())] == [7, 1]
    monkeypatch.setattr(evaluation, "_NUMBERS_AT_ONCE", 3 * 2 * 5 * 48)
    chunks = evaluation.chunk_tasks(tasks, EvaluationConfig())
    assert sorted(sum(chunks, [])) == list(range(8)) and max(map(len, chunks)) <= 3


NAMELESS = Weights("fresh", fresh_weights().config, fresh_weights().meta_parameters)
ADAM = dataclasses.replace(NAMELESS, name="Adam")


@dataclasses.dataclass(frozen=True)
class Start(Task):
    """Its objective is `level` wherever it is."""

    level: float
    says_so: bool = False
    name = "start"
    parameter_shapes = ((2,),)

    @property
    def positive(self):
        return not self.says_so

    def objective(self, parameters, instance):
        return self.level + 0.0 * tf.reduce_sum(parameters[0], axis=-1)


def test_half_the_state_is_run_beside(tmp_path):
    settings = EvaluationConfig(
        steps=6, seeds=1, learning_rates=(0.1,), half_state=True
    )
    weights = [load_weights("default-v4")]
    whole, half = evaluate(weights, [Bowl(1.0)], settings, tmp_path, baselines=[])
    assert half.optimizer == f"{whole.optimizer}, state in bfloat16"
    assert not np.array_equal(half.losses, whole.losses)
    np.testing.assert_allclose(half.losses, whole.losses, rtol=0.02)


def test_tasks_are_found_by_name():
    everything = find_tasks("test")
    assert len(everything) == 5
    names = [everything[3].name, everything[1].name]
    assert find_tasks("test", only=names) == [everything[3], everything[1]]


@pytest.mark.parametrize("level", [float("inf"), float("nan"), -1.0])
def test_starts_without_a_log_loss_are_refused(level, tmp_path):
    settings = EvaluationConfig(steps=1, seeds=1, learning_rates=(0.1,))
    tasks = [Bowl(1.0), Start(level)]
    with pytest.raises(ValueError, match="0 or more at its start. Received: .* start"):
        evaluate([], tasks, settings, tmp_path, baselines=["Adam"])


@pytest.mark.parametrize(
    "call, message",
    [
        *(
            (functools.partial(EvaluationConfig, **settings), message)
            for settings, message in (
                (
                    dict(steps=0),
                    "steps must be a whole number, 1 or more. Received: steps=0",
                ),
                (dict(records=0), "records must be .* 1 or more"),
                (
                    dict(learning_rates=(1.0, -1.0)),
                    "learning_rates must be .* above 0. Received",
                ),
                (
                    dict(initial_rates=(0.0,)),
                    "initial_rates must be .* above 0. Received",
                ),
                (dict(learning_rates=(1.0, 1.0)), "differ from each other. Received"),
                (dict(learning_rates=()), "one or more .* Received"),
            )
        ),
        (lambda: find_tasks("tests"), "tasks must be one of .* Received: 'tests'"),
        (
            lambda: find_tasks("test", only=["lenet"]),
            "only must be of .* Received: lenet",
        ),
        (lambda: statistics.scores(result(np.ones((3, 2, 1, 1))), "loss"), "metric"),
    ],
)
def test_settings_state_the_rule_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "weights, tasks, baselines, message",
    [
        ([], [], ["Adam"], "Received: 0 tasks"),
        ([], [Bowl(1.0)], [], "0 weights, 0 baselines"),
        ([], [Bowl(1.0)], ["Lion"], r"among Adam.*Received: \['Lion'\]"),
        ([NAMELESS] * 2, [Bowl(1.0)], [], r"distinct names. .*\['fresh', 'fresh'\]"),
        ([ADAM], [Bowl(1.0)], ["Adam"], r"distinct names.* \['Adam', 'Adam'\]"),
        ([], [Bowl(1.0)], ["Adam"] * 2, r"distinct names.* \['Adam', 'Adam'\]"),
        ([], [Start(1.0), Start(2.0)], ["Adam"], "tasks must have distinct names"),
        ([], [Start(-1.0, True)], ["Adam"], "0 or more .* negative, start"),
    ],
)
def test_what_cannot_be_compared_is_refused(weights, tasks, baselines, message):
    with pytest.raises(ValueError, match=message):
        evaluate(weights, tasks, EvaluationConfig(), "x", baselines)
