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
from meta_training.tasks.base import Task, grouped

# Twelve rates half a decade apart; Keras's defaults are among them.
LEARNING_RATES = tuple(float(f"{10 ** (-5 + 0.5 * k):.3g}") for k in range(12))
# Part of every cache key: to be raised when a loop, a draw or a network changes.
CACHE_VERSION = 2
_WITH_HORIZON = ", horizon known"
_HALF_STATE = ", state in bfloat16"
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
    initial_rates: tuple[float, ...] = setting(
        (), "Further initial rates of learned optimizers, e.g. 1e-5,1e-2.", above=0
    )
    horizon: bool = setting(False, "Run weights that take a horizon with it, too.")
    half_state: bool = setting(
        False, "Run the hierarchical RNN with its state in bfloat16, too."
    )

    def __post_init__(self):
        check_settings(self)
        rates = self.learning_rates
        if not rates or len(set(rates)) != len(rates):
            raise ValueError(
                "learning_rates must be one or more that differ from each other. "
                f"Received: {rates!r}"
            )

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


def evaluate(
    weights: Sequence[TrainedWeights],
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    cache: pathlib.Path | str,
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
        baselines: names of `BASELINES`; may be empty.
        log: receives a message for each computation.
        single_rates: of baselines, by name: the rates that were best for all training
            tasks, see `tables.best_single_rates`.

    Returns:
        A `Result` for each of the weights, and for those of them that know their
        horizon, then one for each baseline.

    Raises:
        ValueError: names are not unique, there is nothing to run, or objectives may be
            negative.
    """
    tasks, single_rates = list(dict.fromkeys(tasks)), single_rates or {}
    weights = [as_trained(one) for one in weights]
    _check_compared(weights, tasks, baselines)
    compared = []
    for one in weights:
        compared.append(_learned(one, settings))
        if settings.horizon and one.optimizer.takes_horizon:
            compared.append(_learned(one, settings, knows_horizon=True))
        if settings.half_state and isinstance(one.optimizer, HierarchicalRule):
            compared.append(_learned(one, settings, half_state=True))
    for name in baselines:
        single = {single_rates[name]} if name in single_rates else set()
        compared.append(_baseline(name, settings, single))
    run_chunk = _ChunkRunner(settings, pathlib.Path(cache), log)
    found = {one.name: [None] * len(tasks) for one in compared}
    for members in chunk_tasks(tasks, settings):
        chunk = [tasks[index] for index in members]
        for one in compared:
            trained = run_chunk(chunk, one)
            _check_starts(chunk, trained.losses)
            for place, index in enumerate(members):
                found[one.name][index] = trained.of_task(place)
    return [
        Result(
            one.name,
            one.is_learned,
            one.default_rate,
            one.rates,
            tuple(task.name for task in tasks),
            tuple(task.family for task in tasks),
            settings.record_steps,
            np.stack([part.losses for part in found[one.name]], axis=2),
            np.stack([part.evaluation_losses for part in found[one.name]], axis=2),
            np.stack([part.accuracy for part in found[one.name]], axis=1),
            np.array([part.seconds for part in found[one.name]]),
            single_rates.get(one.name),
        )
        for one in compared
    ]


def _check_compared(weights, tasks, baselines):
    """Refuses what cannot be compared."""
    if not tasks or not (weights or baselines):
        raise ValueError(
            "an evaluation must have tasks, and weights or baselines. Received: "
            f"{len(tasks)} tasks, {len(weights)} weights, {len(baselines)} baselines"
        )
    unknown = set(baselines) - set(BASELINES)
    if unknown:
        raise ValueError(
            f"baselines must be among {', '.join(BASELINES)}. "
            f"Received: {sorted(unknown)}"
        )
    compared = [*(one.name for one in weights), *baselines]
    named = [task.name for task in tasks]
    for kind, names in (("weights and baselines", compared), ("tasks", named)):
        if len(set(names)) != len(names):
            raise ValueError(f"{kind} must have distinct names. Received: {names}")
    negative = [task.name for task in tasks if not task.positive]
    if negative:
        raise ValueError(
            "objectives must be 0 or more for log-losses. Received: tasks that may be "
            f"negative, {', '.join(negative)}"
        )


class _Compared(NamedTuple):
    """One of the optimizers that are compared.

    Attributes:
        name, is_learned, default_rate, rates: As of its `Result`.
        identity: What the keys of the cache say of it.
        optimizer: Of a task and a number of runs, for their loop.
        arguments: Of the loop, for a number of runs.
    """

    name: str
    is_learned: bool
    default_rate: float
    rates: tuple[float, ...]
    identity: dict[str, Any]
    optimizer: Callable[[Task, int], Any]
    arguments: Callable[[int], dict[str, Any]]


def _learned(weights, settings, knows_horizon=False, half_state=False) -> _Compared:
    rates = {weights.default_rate}
    if weights.optimizer.takes_initial_rates:
        rates |= set(settings.initial_rates)
    digest = hashlib.sha256()
    for name, array in sorted(weights.meta_parameters.items()):
        digest.update(name.encode() + np.ascontiguousarray(array, "<f4").tobytes())
    identity = {"config": weights.optimizer.to_dict(), "sha256": digest.hexdigest()}
    # Without it, as when there was but one, what is cached of that one stays good.
    if weights.optimizer.name != HierarchicalRule.name:
        identity["optimizer"] = weights.optimizer.name
    name = weights.name
    if knows_horizon:
        identity["horizon"] = True
        name += _WITH_HORIZON
    if half_state:
        identity["state_dtype"] = "bfloat16"
        name += _HALF_STATE

    def arguments(runs):
        found = {"meta_parameters": weights.meta_parameters}
        if knows_horizon:
            found["total_steps"] = np.full(runs, np.float32(settings.steps))
        return found

    return _Compared(
        name,
        True,
        weights.default_rate,
        tuple(sorted(rates)),
        identity,
        lambda task, runs: LearnedRuns(
            weights.optimizer, task.parameter_shapes, runs, half_state
        ),
        arguments,
    )


def _baseline(name, settings, single_rates) -> _Compared:
    optimizer, default = BASELINES[name]
    return _Compared(
        name,
        False,
        default,
        tuple(sorted({default, *single_rates, *settings.learning_rates})),
        {"baseline": name},
        lambda task, runs: optimizer,
        lambda runs: {"total_steps": np.int32(settings.steps)},
    )


def chunk_tasks(tasks: Sequence[Task], settings: EvaluationConfig) -> list[list[int]]:
    """Indices of tasks that one loop trains: of one `batch_key`, not too many.

    The chunks depend on nothing that differs between optimizers, so that all of them
    meet the same noise.
    """
    chunks = []
    for members in grouped(range(len(tasks)), lambda index: tasks[index].batch_key):
        numbers = tasks[members[0]].parameter_count * settings.seeds
        numbers *= _RUNS_OF_A_DRAW
        at_once = max(1, _NUMBERS_AT_ONCE // numbers)
        count = -(-len(members) // at_once)
        chunks += [list(map(int, part)) for part in np.array_split(members, count)]
    return chunks


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
    """Runs a chunk of tasks with one optimizer, or reads it from the cache."""

    def __init__(self, settings, cache, log):
        self._settings, self._cache, self._log = settings, cache, log
        self._compiled: tuple[Any, TrainingLoop | None] = (None, None)
        cache.mkdir(parents=True, exist_ok=True)

    def __call__(self, tasks: Sequence[Task], compared: _Compared) -> _Trained:
        settings, rates = self._settings, compared.rates
        key = {
            **compared.identity,
            "version": CACHE_VERSION,
            "tasks": [repr(task) for task in tasks],
            "steps": settings.record_steps.tolist(),
            "seeds": settings.seeds,
            "rates": rates,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self._cache / f"{digest[:32]}.npz"
        described = f"{compared.name}: {tasks[0].name}"
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
            **compared.arguments(len(run_rates)),
            "learning_rate": run_rates,
            "log_learning_rate": np.log(run_rates),
        }
        # Weights of one optimizer that come one after the other, seeds of a run of
        # meta-training say, share one compilation.
        program = json.dumps({**key, "sha256": None}, sort_keys=True)
        if self._compiled[0] != program:
            made = compared.optimizer(tasks[0], len(run_rates))
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
    instance = {
        name: tf.constant(np.broadcast_to(array, (size, *array.shape)))
        for name, array in test.items()
    }

    @tf.function(autograph=False, jit_compile=True)
    def accuracy(values, averages, instance):
        return task.accuracy(values, instance, averages or None)

    def group(first):
        return tf.nest.map_structure(
            lambda array: tf.constant(array[first : first + size]),
            (runs.values, runs.averages),
        )

    firsts = range(0, count, size)
    return np.concatenate([accuracy(*group(i), instance).numpy() for i in firsts])


def _read_cached(path):
    """What came of it before, or None: a damaged file is run again."""
    try:
        return _Trained(**load_arrays(path))
    except (OSError, TypeError, ValueError):
        return None
