"""Weights against the optimizers of `runs.BASELINES`, on any tasks.

Learned optimizers run untuned, from their card's initial rate; each baseline runs
from its default rate and from every one of a range of others. All train on the same
draws: a task and a seed fix the data, the start, the minibatches and the noise. Tasks
of equal `batch_key`, all rates and all seeds go side by side in one compiled loop, and
what has been run is kept in a cache, so that a second set of weights costs little.

`evaluate` returns one `Result` an optimizer; `meta_training.evaluation` makes tables
and figures of them.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.utils.arrays import load_arrays, save_arrays
from learned_optimizer.utils.flags import check_settings, setting
from meta_training.optimizers import HierarchicalRule, TrainedWeights, as_trained
from meta_training.runs import (
    BASELINES,
    LearnedRuns,
    Runs,
    TrainingLoop,
    draw_runs,
    record_steps,
)
from meta_training.runs.loop import group_size
from meta_training.tasks.base import Task

# Twelve rates half a decade apart; Keras's defaults are among them.
LEARNING_RATES = tuple(float(f"{10 ** (-5 + 0.5 * k):.3g}") for k in range(12))
# Part of every cache key: to be raised when a loop, a draw or a network changes.
CACHE_VERSION = 2
_WITH_HORIZON = ", horizon known"
# Numbers optimized side by side in one loop: more leave every cache of a processor.
_NUMBERS_AT_ONCE = 4_000_000
# Runs of a draw that a chunk has room for. The noise of a task depends on its chunk.
_RUNS_OF_A_DRAW = 48


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How tasks are trained; `setting` documents each field."""

    steps: int = setting(2000, "Inner steps of each run.", at_least=1)
    seeds: int = setting(5, "Draws of each task.", at_least=1)
    records: int = setting(60, "About how many losses of a run to record.", at_least=1)
    record_every: int | None = setting(
        None, "Steps between recorded losses, instead of --records.", at_least=1
    )
    learning_rates: tuple[float, ...] = setting(
        LEARNING_RATES, "Learning rates of the baselines.", above=0
    )
    horizon: bool = setting(False, "Run weights that take a horizon with it, too.")

    def __post_init__(self):
        check_settings(self)
        require_rates("learning_rates", self.learning_rates)

    @property
    def record_steps(self) -> np.ndarray:
        """The steps at which losses are recorded."""
        return record_steps(self.steps, self.records, self.record_every)


@dataclasses.dataclass(frozen=True)
class Result:
    """All runs of one optimizer.

    Attributes:
        optimizer: its name in reports.
        is_learned: whether it is a learned one; then rates are initial rates.
        default_rate: the rate that it has untuned.
        rates: of its runs.
        tasks: names of the tasks.
        families: the family of each.
        steps: `[records]`.
        losses: `[records, rates, tasks, seeds]` on the whole training set.
        evaluation_losses: the same under the running averages of batch normalisation;
            `losses` themselves where a task has none.
        test_accuracy: `[rates, tasks, seeds]` at the end, under running averages; nan
            where there is none.
        seconds_per_step: `[tasks]`, of one run, as part of a loop of many.
        single_rate: the rate for all tasks that was chosen on others; None: it is to
            be chosen on these.
    """

    optimizer: str
    is_learned: bool
    default_rate: float
    rates: tuple[float, ...]
    tasks: tuple[str, ...]
    families: tuple[str, ...]
    steps: np.ndarray
    losses: np.ndarray
    evaluation_losses: np.ndarray
    test_accuracy: np.ndarray
    seconds_per_step: np.ndarray
    single_rate: float | None = None

    @property
    def default_index(self) -> int:
        """Where the default rate is among the rates."""
        return self.rates.index(self.default_rate)


def require_rates(name: str, rates) -> None:
    """Raises ValueError unless `rates` are distinct, positive and finite."""
    if not rates or not all(0 < rate < np.inf for rate in rates):
        raise ValueError(
            f"{name} must be one or more positive numbers. Received: {rates!r}"
        )
    if len(set(rates)) != len(rates):
        raise ValueError(f"{name} must differ from each other. Received: {rates!r}")


def evaluate(
    weights: Sequence[TrainedWeights],
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    cache: pathlib.Path | str,
    initial_rates: Sequence[float] = (),
    baselines: Sequence[str] = tuple(BASELINES),
    log: Callable[[str], None] = lambda message: None,
    single_rates: Mapping[str, float] | None = None,
) -> list[Result]:
    """Trains all tasks with all optimizers, or reads what was trained before.

    Args:
        weights: of the learned optimizers; those of `learned_optimizer` will do, too.
        tasks: with distinct names.
        settings: of the runs.
        cache: folder of what has been run; made if it is not there.
        initial_rates: start the learned rates from these too, unless an optimizer
            has learned where they start.
        baselines: names of `BASELINES`; may be empty.
        log: receives a message for each computation.
        single_rates: of baselines, by name: the rates that were best for all training
            tasks, see `tables.best_single_rates`.

    Returns:
        A `Result` for each of the weights, and for those of them that know their
        horizon, then one for each baseline.

    Raises:
        ValueError: names are not unique, there is nothing to run, or a rate is bad.
    """
    if not tasks or not (weights or baselines):
        raise ValueError(
            "an evaluation must have tasks, and weights or baselines. Received: "
            f"{len(tasks)} tasks, {len(weights)} weights, {len(baselines)} baselines"
        )
    if initial_rates:
        require_rates("initial_rates", tuple(initial_rates))
    unknown = set(baselines) - set(BASELINES)
    if unknown:
        raise ValueError(
            f"baselines must be among {', '.join(BASELINES)}. "
            f"Received: {sorted(unknown)}"
        )
    tasks = with_unique_names(tasks)
    weights = [as_trained(one) for one in weights]
    names = [one.name for one in weights]
    if len({*names, *baselines}) != len(names) + len(baselines):
        raise ValueError(
            "weights and baselines must have distinct names. Received: "
            f"{[*names, *baselines]}"
        )
    negative = [name for name, task in tasks if not task.positive]
    if negative:
        raise ValueError(
            "objectives must be 0 or more for log-losses. Received: tasks that may be "
            f"negative, {', '.join(negative)}"
        )
    single_rates = single_rates or {}
    run_chunk = _ChunkRunner(settings, pathlib.Path(cache), log)
    chunks = chunk_tasks([task for _, task in tasks], settings)
    compared = []
    for one in weights:
        rates = _learned_rates(one, initial_rates)
        compared.append((one.name, one, one.default_rate, rates))
        if settings.horizon and one.optimizer.takes_horizon:
            name = one.name + _WITH_HORIZON
            compared.append((name, one, one.default_rate, rates))
    for name in baselines:
        default = BASELINES[name][1]
        single = {single_rates[name]} if name in single_rates else set()
        rates = tuple(sorted({default, *single, *settings.learning_rates}))
        compared.append((name, None, default, rates))
    found = {name: [None] * len(tasks) for name, *_ in compared}
    for members in chunks:
        chunk = [tasks[index][1] for index in members]
        for name, one, _, rates in compared:
            if one is None:
                trained = run_chunk.baseline(chunk, name, rates)
            else:
                knows = name.endswith(_WITH_HORIZON)
                trained = run_chunk.learned(chunk, one, rates, knows)
            _check_starts(chunk, trained.losses)
            for place, index in enumerate(members):
                found[name][index] = trained.of_task(place)
    labels = tuple(name for name, _ in tasks)
    families = tuple(task.family for _, task in tasks)
    return [
        Result(
            name,
            one is not None,
            default,
            rates,
            labels,
            families,
            settings.record_steps,
            np.stack([part.losses for part in found[name]], axis=2),
            np.stack([part.evaluation_losses for part in found[name]], axis=2),
            np.stack([part.accuracy for part in found[name]], axis=1),
            np.array([part.seconds for part in found[name]]),
            single_rates.get(name),
        )
        for name, one, default, rates in compared
    ]


def with_unique_names(tasks: Sequence[Task]) -> list[tuple[str, Task]]:
    """Names and tasks, without repetitions of equal tasks."""
    distinct = list(dict.fromkeys(tasks))
    names = [task.name for task in distinct]
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"tasks must have distinct names. Received: {repeated}")
    return list(zip(names, distinct, strict=True))


def chunk_tasks(tasks: Sequence[Task], settings: EvaluationConfig) -> list[list[int]]:
    """Indices of tasks that one loop trains: of one `batch_key`, not too many.

    The chunks depend on nothing that differs between optimizers, so that all of them
    meet the same noise.
    """
    groups = {}
    for index, task in enumerate(tasks):
        groups.setdefault(task.batch_key, []).append(index)
    chunks = []
    for members in groups.values():
        numbers = tasks[members[0]].parameter_count * settings.seeds
        numbers *= _RUNS_OF_A_DRAW
        at_once = max(1, _NUMBERS_AT_ONCE // numbers)
        count = -(-len(members) // at_once)
        chunks += [list(map(int, part)) for part in np.array_split(members, count)]
    return chunks


def _learned_rates(weights, initial_rates):
    if not weights.optimizer.takes_initial_rates:
        return (weights.default_rate,)
    return tuple(sorted({weights.default_rate, *initial_rates}))


def _check_starts(tasks, losses):
    """Refuses tasks whose log-losses would mean nothing."""
    starts = losses[0]
    # Rounding may leave a loss of zero a little below it.
    good = np.all(np.isfinite(starts) & (starts > -1e-6), axis=(0, 2))
    if not np.all(good):
        bad = [
            task.name for task, is_good in zip(tasks, good, strict=True) if not is_good
        ]
        raise ValueError(
            "the objective of a task must be finite and 0 or more at its start. "
            f"Received: others of {', '.join(bad)}"
        )


class _Trained(NamedTuple):
    """What came of a chunk of tasks, in the order of a cache file.

    Attributes:
        losses: `[records, rates, tasks, seeds]`.
        evaluation_losses: The same.
        accuracy: `[rates, tasks, seeds]`, on test rows.
        seconds: Of a step of one run.
    """

    losses: np.ndarray
    evaluation_losses: np.ndarray
    accuracy: np.ndarray
    seconds: np.ndarray

    def of_task(self, place: int) -> "_Trained":
        """Those of one task, without its axis."""
        losses = (losses[:, :, place] for losses in self[:2])
        return _Trained(*losses, self.accuracy[:, place], self.seconds)


class _ChunkRunner:
    """Runs a chunk of tasks with one optimizer."""

    def __init__(self, settings, cache, log):
        self._settings, self._cache, self._log = settings, cache, log
        self._compiled: tuple[Any, TrainingLoop | None] = (None, None)
        cache.mkdir(parents=True, exist_ok=True)

    def learned(self, tasks, weights, rates, knows_horizon):
        digest = hashlib.sha256()
        for name, array in sorted(weights.meta_parameters.items()):
            digest.update(name.encode() + np.ascontiguousarray(array, "<f4").tobytes())
        identity = {"config": weights.optimizer.to_dict(), "sha256": digest.hexdigest()}
        # Without it, as when there was but one, what is cached of that one stays good.
        if weights.optimizer.name != HierarchicalRule.name:
            identity["optimizer"] = weights.optimizer.name

        def optimizer(task, runs):
            return LearnedRuns(weights.optimizer, task.parameter_shapes, runs)

        arguments = {"meta_parameters": weights.meta_parameters}
        if knows_horizon:
            identity["horizon"] = True
            # For each run; `_run` has as many as rates, tasks and seeds.
            runs = len(rates) * len(tasks) * self._settings.seeds
            steps = np.float32(self._settings.steps)
            arguments["total_steps"] = np.full(runs, steps)
        return self._run(tasks, weights.name, identity, optimizer, arguments, rates)

    def baseline(self, tasks, name, rates):
        arguments = {"total_steps": np.int32(self._settings.steps)}
        baseline = BASELINES[name][0]
        return self._run(
            tasks, name, {"baseline": name}, lambda *_: baseline, arguments, rates
        )

    def _run(self, tasks, label, identity, optimizer, arguments, rates):
        settings = self._settings
        key = {
            **identity,
            "version": CACHE_VERSION,
            "tasks": [repr(task) for task in tasks],
            "steps": settings.record_steps.tolist(),
            "seeds": settings.seeds,
            "rates": rates,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self._cache / f"{digest[:32]}.npz"
        described = f"{label}: {tasks[0].name}"
        if len(tasks) > 1:
            described += f" and {len(tasks) - 1} more"
        found = _read_cached(path)
        if found is not None:
            self._log(f"{described}: from the cache")
            return found
        draws = draw_runs(tasks, range(settings.seeds), settings.steps)
        count = len(draws.tasks)
        draw_of_run = np.tile(np.arange(count), len(rates))
        run_rates = np.repeat(rates, count).astype(np.float32)
        arguments = {
            **arguments,
            "learning_rate": run_rates,
            "log_learning_rate": np.log(run_rates),
        }
        # Weights of one optimizer that come one after the other, seeds of a run of
        # meta-training say, share one compilation.
        program = json.dumps({**key, "sha256": None}, sort_keys=True)
        if self._compiled[0] != program:
            made = optimizer(tasks[0], len(run_rates))
            loop = TrainingLoop(tasks[0], made, draw_of_run, draws)
            self._compiled = (program, loop)
        runs = self._compiled[1](settings.record_steps, arguments)
        shape = (len(rates), len(tasks), settings.seeds)
        found = _Trained(
            runs.losses.reshape(-1, *shape),
            runs.evaluation_losses.reshape(-1, *shape),
            _test_accuracy(tasks[0], runs).reshape(shape),
            np.array(runs.seconds / settings.steps / len(run_rates)),
        )
        save_arrays(path, found._asdict())
        self._log(f"{described}: {len(run_rates)} runs, {runs.seconds:.1f} s")
        return found


def _test_accuracy(task: Task, runs: Runs) -> np.ndarray:
    """`[runs]` accuracies on test rows; nan where the task has none."""
    count = runs.losses.shape[1]
    if not (hasattr(task, "test_instance") and hasattr(task, "accuracy")):
        return np.full(count, np.nan, np.float32)
    test = task.test_instance()
    size = group_size(count, len(test["labels"]))
    stacked = {
        name: np.broadcast_to(array, (size, *array.shape))
        for name, array in test.items()
    }
    instance = {name: tf.constant(array) for name, array in stacked.items()}
    groups = [
        tf.nest.map_structure(
            lambda array, first=first: tf.constant(array[first : first + size]),
            (runs.values, runs.averages),
        )
        for first in range(0, count, size)
    ]

    @tf.function(autograph=False, jit_compile=True)
    def accuracy(values, averages, instance):
        return task.accuracy(values, instance, averages or None)

    return np.concatenate([accuracy(*group, instance).numpy() for group in groups])


def _read_cached(path):
    """What came of it before, or None: a damaged file is run again."""
    try:
        return _Trained(**load_arrays(path))
    except (OSError, TypeError, ValueError):
        return None
