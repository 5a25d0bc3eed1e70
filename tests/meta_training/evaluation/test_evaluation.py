"""The evaluation: statistics by hand, reports, end to end."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule.config import Config
from learned_optimizer.weights import Weights, fresh_weights, load_weights
from meta_training.evaluate import find_tasks
from meta_training.evaluation import comparison as evaluation
from meta_training.evaluation import figures, statistics, write_report
from meta_training.evaluation.comparison import EvaluationConfig, Result, evaluate
from meta_training.evaluation.tables import best_single_rates, write_tables
from meta_training.runs import TrainingLoop
from meta_training.tasks.base import Task
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.released.quadratics import Quadratic
from meta_training.tasks.small_networks.perceptrons import Perceptron

NETWORK = Perceptron(6, (7, 5), 3, rows=50, batch_size=8)


# Statistics.


def result(losses, rates=(1e-3, 1e-2), steps=(0, 1, 2), default=1e-3, **changes):
    losses = np.asarray(losses, np.float32)
    _, _, tasks, _ = losses.shape
    fields = dict(
        optimizer="Adam",
        is_learned=False,
        default_rate=default,
        rates=rates,
        tasks=tuple(f"task_{index}" for index in range(tasks)),
        families=("family",) * tasks,
        steps=np.array(steps),
        losses=losses,
        evaluation_losses=losses,
        test_accuracy=np.full(losses.shape[1:], np.nan),
        seconds_per_step=np.ones(tasks),
    )
    return Result(**{**fields, **changes})


def test_log_losses_by_hand():
    logs = statistics.log_losses(np.array([[2.0], [0.5], [0.0], [np.nan], [1e30]]))
    expected = [
        math.log(2 / (2 + 1e-6) + 1e-6),
        math.log(0.5 / (2 + 1e-6) + 1e-6),
        math.log(1e-6),
        -math.log(1e-6),
        -math.log(1e-6),
    ]
    np.testing.assert_allclose(logs[:, 0], expected, rtol=1e-12)


def test_rates_are_chosen_for_all_tasks_and_for_each():
    # [records, rates, tasks, seeds]: the second rate is best on the second task only.
    losses = np.ones((3, 2, 2, 1))
    losses[1:, 0] = [[0.001], [0.5]]
    losses[1:, 1] = [[0.9], [0.4]]
    for metric in statistics.METRICS:
        default, single, each = statistics.choices(result(losses, default=1e-2), metric)
        assert default.rates.tolist() == [1, 1]
        assert single.rates.tolist() == [0, 0]
        assert each.rates.tolist() == [0, 1]
    final = statistics.scores(result(losses), "final loss")
    assert final[1, 0, 0] == pytest.approx(math.log(0.9), abs=1e-5)
    # The trapezoid from 1 to 0.9 and the flat step after it.
    mean = statistics.scores(result(losses), "mean log-loss")
    assert mean[1, 0, 0] == pytest.approx(0.75 * math.log(0.9), abs=1e-5)


def test_interquartile_mean_and_interval():
    table = np.array([[0.0, 1, 2, 3], [4, 5, 6, 100]])
    assert statistics.interquartile_mean(table) == pytest.approx((2 + 3 + 4 + 5) / 4)
    low, high = statistics.interval(table)
    assert low < 3.5 < high
    assert statistics.interval(np.ones((3, 4))) == (1, 1)
    # Seeds are drawn again, tasks are not.
    assert statistics.interval(np.array([[0.0] * 8, [10.0] * 8])) == (5, 5)
    # Runs that diverged have infinite losses.
    low, high = statistics.interval(np.array([[1.0, 1, 2, np.inf], [1, 2, np.inf, 3]]))
    assert 1 <= low <= high and not np.isnan(high)


def test_fraction_won_counts_ties():
    own, other = np.array([[1.0], [2], [3]]), np.array([[1.0], [3], [2]])
    assert statistics.fraction_won(own, other) == pytest.approx(2 / 3)


def test_the_interval_of_wins_is_that_of_tasks_and_of_seeds():
    """Where seeds agree it is that of a share of 100 tasks: binomial."""
    own = np.zeros((100, 3))
    other = np.where(np.arange(100) < 70, 1.0, -1.0)[:, None] + np.zeros((1, 3))
    low, high = statistics.won_interval(own, other)
    wanted = 1.96 * math.sqrt(0.7 * 0.3 / 100)
    assert low == pytest.approx(0.7 - wanted, abs=0.02)
    assert high == pytest.approx(0.7 + wanted, abs=0.02)
    # One task, whose mean over seeds is drawn below the other's or not.
    own, other = np.array([[-1.0, 3.0]]), np.array([[0.0, 0.0]])
    assert statistics.won_interval(own, other) == (0, 1)
    assert statistics.won_interval(np.zeros((4, 2)), np.zeros((4, 2))) == (1, 1)


def test_a_rate_chosen_on_other_tasks_is_read_from_their_runs(tmp_path):
    losses = np.ones((3, 2, 2, 1))
    losses[1:, 0] = [[0.001], [0.5]]
    losses[1:, 1] = [[0.9], [0.4]]
    write_tables([result(losses)], tmp_path)
    assert best_single_rates(tmp_path / "runs.csv") == {"Adam": 1e-3}
    # On these tasks the other rate would be better.
    chosen = result(losses[:, :, 1:], single_rate=1e-3)
    choice = statistics.choices(chosen, "final loss")[1]
    assert choice.name == "rate of other tasks" and choice.rates.tolist() == [0]
    with pytest.raises(ValueError, match="must come from the runs.csv .* Received:"):
        best_single_rates(tmp_path / "curves.csv")


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


def test_weights_that_take_a_horizon_run_with_it_too(tmp_path):
    settings = EvaluationConfig(steps=10, seeds=1, records=4, horizon=True)
    weights = [load_weights("default-v3"), fresh_weights(seed=0)]
    results = evaluate(weights, [Bowl(1.0)], settings, tmp_path, baselines=())
    names = [one.optimizer for one in results]
    assert names == ["default-v3", "default-v3, horizon known", "fresh"]
    assert not np.array_equal(results[0].losses, results[1].losses)


def test_progress_and_sensitivity_floor_losses():
    losses = np.ones((3, 2, 1, 2))
    losses[1:, 0, 0] = [[1e-5, 0.1], [5e-4, 0.2]]
    losses[2, 1, 0] = [np.nan, 1]
    found = statistics.progress(result(losses))
    assert found.ratio[:, 0].tolist() == pytest.approx([2, np.inf])
    assert statistics.sensitivity(result(losses))[0] == np.inf
    losses[2] = [[[1e-5, 1e-5]], [[3e-3, 3e-3]]]
    assert statistics.sensitivity(result(losses))[0] == pytest.approx(3)


def test_the_interval_is_that_of_95_of_100():
    """Of one task the plain bootstrap, drawn here once more."""
    generator = np.random.default_rng(1)
    seeds = generator.normal(size=40)
    drawn = np.sort(generator.choice(seeds, (20_000, 40)))[:, 10:30].mean(axis=1)
    wanted = np.percentile(drawn, [2.5, 97.5])
    found = statistics.interval(seeds[None])
    assert np.diff(found) == pytest.approx(np.diff(wanted), rel=0.1)
    np.testing.assert_allclose(found, wanted, atol=0.06)


# Reports.


@pytest.fixture
def few_bootstraps(monkeypatch):
    monkeypatch.setattr(statistics, "_BOOTSTRAPS", 20)


def many_tasks(count):
    """Results of a learned optimizer, that goes by its path, and of two baselines.

    The learned one ends at half the first loss on two tasks of three, at twice on the
    third; from the other rate at 0.7 times. Of the two rates of the baselines, the
    default one ends at 0.8 times the first loss; the other at 0.6 times on the first
    half of the tasks, at 1 on the rest.
    """
    families = tuple("odd" if task % 3 == 2 else "even" for task in range(count))
    losses = np.ones((3, 2, count, 2))
    losses[1:, 0] = np.where(np.array(families) == "odd", 2.0, 0.5)[:, None]
    losses[1:, 1] = 0.7
    common = dict(families=families)
    found = [
        result(losses, optimizer="runs/a/weights", is_learned=True, **common),
    ]
    losses = np.ones((3, 2, count, 2))
    losses[1:, 0] = 0.8
    losses[1:, 1, : count // 2] = 0.6
    return found + [result(losses, optimizer=name, **common) for name in ("Adam", "B")]


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
    assert "| all, mean |" in text


def test_figures_of_many_tasks_show_what_was_computed():
    learned, adam, _ = results = many_tasks(12)
    (axis,) = figures._differences(learned, adam).axes
    logs = np.log([0.5, 2.0, 0.6, 0.8])
    own = np.where(np.arange(12) % 3 == 2, logs[1], logs[0])
    tuned = np.where(np.arange(12) < 6, logs[2], logs[3])
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(heights, np.sort(0.75 * (own - tuned)), atol=1e-5)
    (axis,) = figures._curve_of_all(results).axes
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert list(curves) == [
        *("runs/a/weights, untuned", "Adam, 0.001", "Adam, tuned for each task")
    ]
    # The middle half of all tasks.
    np.testing.assert_allclose(
        [curve[-1] for curve in curves.values()],
        [(5 * logs[0] + logs[1]) / 6, logs[3], (logs[2] + logs[3]) / 2],
        atol=1e-5,
    )


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
    assert row == "| task_1 | runs/a/weights, 0.001 | 0.5 | 1.5 | 39.9 |"


# End to end.


def test_evaluation_writes_a_report_and_reuses_the_baselines(tmp_path):
    tasks = [NETWORK, Bowl(1.0), Bowl(10.0, noise_stdev=0.1)]
    settings = EvaluationConfig(
        steps=12, seeds=2, records=6, learning_rates=(1e-3, 1e-2, 1e-1)
    )
    shipped = load_weights("bootstrap-v1")
    other = fresh_weights(seed=1)
    messages = []
    arguments = (tasks, settings, tmp_path / "cache")
    baselines = ("Adam", "Schedule-free AdamW")
    options = dict(initial_rates=[1e-1], baselines=baselines, log=messages.append)
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
    bounded = dataclasses.replace(shipped, config=config)
    found = [
        evaluate(weights, [Bowl(1.0)], settings, tmp_path, baselines=names)
        for weights, names in (
            ([], ["SGD momentum"]),
            ([], ["Adam"]),
            ([shipped], []),
            ([bounded], []),
        )
    ]
    (sgd,), (adam,), (free,), (held,) = found
    assert (sgd.optimizer, adam.optimizer) == ("SGD momentum", "Adam")
    assert not np.array_equal(sgd.losses, adam.losses)
    assert not np.array_equal(free.losses, held.losses)


@pytest.mark.parametrize(
    "change",
    [dict(steps=11), dict(seeds=1), dict(learning_rates=(1e-2,)), dict(records=4)],
)
def test_cache_keys_hold_the_settings(change, tmp_path):
    settings = dict(steps=10, seeds=2, records=6, learning_rates=(1e-3,))
    messages = []
    for changes in ({}, change):
        evaluate(
            [],
            [Bowl(1.0)],
            EvaluationConfig(**{**settings, **changes}),
            tmp_path,
            baselines=["SGD momentum"],
            log=messages.append,
        )
    assert not any("cache" in message for message in messages)


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

    @property
    def positive(self):
        return not self.says_so

    @property
    def parameter_shapes(self):
        return ((2,),)

    def objective(self, parameters, instance):
        return self.level + 0.0 * tf.reduce_sum(parameters[0], axis=-1)


@pytest.mark.parametrize("level", [float("inf"), float("nan"), -1.0])
def test_starts_without_a_log_loss_are_refused(level, tmp_path):
    settings = EvaluationConfig(steps=1, seeds=1, learning_rates=(0.1,))
    tasks = [Bowl(1.0), Start(level)]
    with pytest.raises(ValueError, match="0 or more at its start; .*not so of start"):
        evaluate([], tasks, settings, tmp_path, baselines=["Adam"])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: EvaluationConfig(steps=0),
            "steps must be a whole number, 1 or more. Received: steps=0",
        ),
        (
            lambda: EvaluationConfig(learning_rates=(1.0, -1.0)),
            "learning_rates must be .* above 0. Received",
        ),
        (
            lambda: EvaluationConfig(learning_rates=(1.0, 1.0)),
            "must differ .* Received",
        ),
        (lambda: evaluate([], [], EvaluationConfig(), "x"), "Received: 0 tasks"),
        (
            lambda: evaluate(
                [], [Bowl(1.0)], EvaluationConfig(), "x", baselines=["Lion"]
            ),
            r"baselines must be among Adam.*Received: \['Lion'\]",
        ),
        (
            lambda: evaluate([NAMELESS] * 2, [Bowl(1.0)], EvaluationConfig(), "x"),
            r"distinct names. Received: \['fresh', 'fresh', 'Adam'",
        ),
        (
            lambda: evaluate(
                [ADAM], [Bowl(1.0)], EvaluationConfig(), "x", baselines=["Adam"]
            ),
            r"weights and baselines must have names.* \['Adam', 'Adam'\]",
        ),
        (
            lambda: evaluate(
                [], [Bowl(1.0)], EvaluationConfig(), "x", baselines=["Adam"] * 2
            ),
            r"weights and baselines must have names.* \['Adam', 'Adam'\]",
        ),
        (
            lambda: evaluate([], [Start(-1.0, True)], EvaluationConfig(), "x"),
            "objectives of 0 or more, which these tasks may not have: start",
        ),
        (lambda: find_tasks("tests"), "tasks must be one of .* Received: 'tests'"),
        (lambda: statistics.scores(result(np.ones((3, 2, 1, 1))), "loss"), "metric"),
    ],
)
def test_errors_state_the_rule_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
