"""The trajectories of the tasks: their state, their ends and their new starts.

Every task follows a separate trajectory, one window of inner steps per outer step,
until it reaches its horizon or is cut off. Then it starts afresh, with a new instance,
new parameters, a new horizon and new learning rates. All of these are a pure function
of the seed, the task and the outer step at which the trajectory starts. So a checkpoint
holds no data sets, only those outer steps.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.config import MIN_LOG_LEARNING_RATE
from learned_optimizer.utils.flags import check_order, check_settings, setting
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.windows import Carry, InnerState, Window
from meta_training.optimizers.base import TrainableOptimizer

# The purposes of random generators; each seed sequence contains one of them.
_INSTANCE, _START, _REDRAW, _WINDOW, _UNROLL = range(5)

_MANY_STEPS = 1e12


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """How trajectories start, go on and end; `setting` documents each field.

    The mean number of inner steps of a window is that before the cut: the least plus an
    exponential number, cut off at the most. The lengths of trajectories are
    exponentially distributed, too; one ends with the window in which it reaches its
    length. With `spread_over_elements`, as released, half of the log range of the
    initial learning rates is drawn for each element, half once per tensor; else a task
    has one rate. Learning rates are relative to the scale that `scale_range` draws.
    """

    min_window_steps: int = setting(50, "Least inner steps of a window.", at_least=1)
    mean_window_steps: float = setting(
        250.0, "Mean inner steps of a window.", above=0, below=_MANY_STEPS
    )
    max_window_steps: int = setting(500, "Most inner steps of a window.", at_least=1)
    mean_horizon: float = setting(
        10_250.0, "Mean inner steps of a trajectory.", above=0, below=_MANY_STEPS
    )
    low_learning_rate: float = setting(
        1e-6, "Lower end of the initial learning rates, log-uniform.", above=0
    )
    high_learning_rate: float = setting(
        1e-2, "Upper end of the initial learning rates.", above=0
    )
    spread_over_elements: bool = setting(
        True, "Whether initial learning rates differ by element."
    )
    scale_range: float = setting(
        1.0,
        "Each task's parameters are multiplied by a log-uniform factor between "
        "1 / scale_range and scale_range; 1: not at all.",
        at_least=1,
    )
    scale_jitter: float = setting(
        0.0, "Standard deviation of a further log-normal factor per tensor.", at_least=0
    )
    redraw_probability: float = setting(
        0.0,
        "Chance that a task's learning rates are drawn anew at the start of a window, "
        "while all else goes on.",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self):
        check_settings(self)
        check_order(
            self,
            ("min_window_steps", "max_window_steps"),
            ("min_window_steps", "mean_window_steps"),
            ("low_learning_rate", "high_learning_rate"),
        )


class Start(NamedTuple):
    """A new trajectory of one task.

    Attributes:
        instance: Its arrays.
        parameters: Its tensors, at the scale of the task.
        log_scale: `[tensors]`, log of the optimizer's scale over the task's.
        horizon: Its length in inner steps.
    """

    instance: dict[str, np.ndarray]
    parameters: list[np.ndarray]
    log_scale: np.ndarray
    horizon: int


class Trajectories:
    """All tasks' trajectories, on the host.

    Attributes:
        started_at: `[tasks]`, the outer step at which each trajectory began.
        remaining: `[tasks]`, inner steps until its horizon.
    """

    def __init__(
        self,
        batch: ProblemBatch,
        optimizer: TrainableOptimizer,
        options: TrajectoryConfig,
        seed: int,
        weights=None,
        window_seed: int | None = None,
    ):
        """Allocates the arrays of the trajectories; `advance` starts them.

        Args:
            batch: The tasks side by side.
            optimizer: What is trained.
            options: How trajectories start and end.
            seed: Of all random numbers but the lengths of windows.
            weights: `[tasks]`, the weight of each; None: equal weights.
            window_seed: Of those lengths, the same in all cohorts of a run, since
                replicas that work in step would wait for the longest. None: `seed`.
        """
        self.batch = batch
        self.options = options
        self._optimizer = optimizer
        self._seed = seed
        self._window_seed = seed if window_seed is None else window_seed
        layout = batch.layout
        packed = (layout.num_blocks, layout.block_size)
        attended = packed if optimizer.uses_attention else (0, packed[1])
        shapes = optimizer.state_shapes(layout).items()
        state = {name: np.zeros(shape, np.float32) for name, shape in shapes}
        tasks = len(batch.tasks)
        self.started_at = np.full(tasks, -1)
        self.remaining = np.zeros(tasks, np.int64)
        self.alive = np.ones(batch.num_problems, np.float32)
        self.initial_objective = np.zeros(batch.num_problems, np.float32)
        self.inner = InnerState(
            np.zeros(packed, np.float32),
            np.zeros(attended, np.float32),
            optimizer.state_type(**state),
        )
        self._inverse_scale = np.ones((packed[0], 1), np.float32)
        self._log_scale = np.zeros(tasks, np.float32)
        self._instances: list[dict[str, np.ndarray]] = [{} for _ in batch.groups]
        self._on_device: list[Any] = [None] * len(batch.groups)
        self._place = {
            member: (number, j)
            for number, group in enumerate(batch.groups)
            for j, member in enumerate(group.members)
        }
        weights = np.ones(tasks) if weights is None else np.asarray(weights, float)
        if weights.shape != (tasks,) or weights.min() < 0 or not weights.sum() > 0:
            raise ValueError(
                f"weights must be {tasks} numbers, 0 or more and not all 0. Received: "
                f"{weights.tolist()}"
            )
        by_problem = weights[batch.problem_task]
        self._weights = (by_problem / by_problem.sum()).astype(np.float32)

    def window_steps(self, outer_step: int) -> int:
        """Inner steps of the window at `outer_step`."""
        options = self.options
        extra = options.mean_window_steps - options.min_window_steps
        extra = extra * self._generator(_WINDOW, outer_step).exponential()
        return int(min(options.min_window_steps + extra, options.max_window_steps))

    def unroll_seed(self, outer_step: int) -> int:
        """The seed of the random numbers inside the window at `outer_step`."""
        return int(self._generator(_UNROLL, outer_step).integers(2**31 - 1))

    def advance(self, outer_step: int) -> Carry:
        """Starts due trajectories and redraws learning rates for the next window."""
        cut_off = np.ones(len(self.batch.tasks), bool)
        np.logical_and.at(cut_off, self.batch.problem_task, self.alive > 0)
        due = (self.remaining <= 0) | ~cut_off
        fresh = np.zeros(self.batch.num_problems, np.float32)
        for task in np.flatnonzero(due):
            self._begin(task, outer_step)
            fresh[self.batch.problem_task == task] = 1
        for task in np.flatnonzero(~due):
            generator = self._generator(_REDRAW, outer_step, task)
            if generator.random() < self.options.redraw_probability:
                self._draw_learning_rates(task, generator)
        self.remaining -= self.window_steps(outer_step)
        for number, arrays in enumerate(self._instances):
            if self._on_device[number] is None:
                self._on_device[number] = {
                    name: tf.constant(array) for name, array in arrays.items()
                }
        return Carry(
            inner=self.inner,
            fresh=fresh,
            alive=self.alive,
            initial_objective=self.initial_objective,
            inverse_scale=self._inverse_scale,
            weights=self._weights,
            instances=list(self._on_device),
        )

    def take(self, window: Window) -> None:
        """Takes over the state after a window."""
        # Copies, since `advance` writes to them.
        self.inner = tf.nest.map_structure(np.array, window.inner)
        self.alive = np.array(window.alive)
        self.initial_objective = np.array(window.initial_objective)

    def draw_start(self, task: int, outer_step: int) -> Start:
        """The trajectory of `task` that starts at `outer_step`."""
        generator = self._generator(_START, outer_step, task)
        options = self.options
        horizon = max(1, math.ceil(options.mean_horizon * generator.exponential()))
        tensors = len(self.batch.tasks[task].parameter_shapes)
        log_range = math.log(options.scale_range)
        log_scale = generator.uniform(-log_range, log_range)
        log_scale = log_scale + options.scale_jitter * generator.normal(size=tensors)
        generator = self._generator(_INSTANCE, outer_step, task)
        definition = self.batch.tasks[task]
        instance = definition.sample_instance(generator)
        parameters = definition.sample_parameters(generator)
        shapes = tuple(np.shape(tensor) for tensor in parameters)
        if shapes != tuple(definition.parameter_shapes):
            raise ValueError(
                f"the parameters of {definition.name} must have the shapes "
                f"{definition.parameter_shapes}. Received: {shapes}"
            )
        return Start(instance, parameters, log_scale, horizon)

    def state(self) -> dict[str, np.ndarray]:
        """The state for a checkpoint, as named arrays."""
        return {
            "started_at": self.started_at,
            "remaining": self.remaining,
            "alive": self.alive,
            "initial_objective": self.initial_objective,
            "values": self.inner.values,
            "attended_values": self.inner.attended_values,
            **self.inner.state._asdict(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The reverse of `state`; the same instances are drawn again."""
        for task, outer_step in enumerate(arrays["started_at"]):
            if outer_step >= 0:
                self._begin(task, int(outer_step))
        arrays = {name: array.copy() for name, array in arrays.items()}
        for name in ("started_at", "remaining", "alive", "initial_objective"):
            setattr(self, name, arrays[name])
        state = {name: arrays[name] for name in self.inner.state._fields}
        self.inner = InnerState(
            arrays["values"],
            arrays["attended_values"],
            self._optimizer.state_type(**state),
        )

    def _generator(self, purpose, *key) -> np.random.Generator:
        seed = self._window_seed if purpose == _WINDOW else self._seed
        return np.random.default_rng([seed, purpose, *map(int, key)])

    def _blocks(self, task):
        """For each replica of a task, the blocks of each of its tensors."""
        number, j = self._place[task]
        group = self.batch.groups[number]
        return [
            self.batch.blocks_of(group, replica * len(group.tasks) + j)
            for replica in range(group.replicas)
        ]

    def _begin(self, task, outer_step):
        """Writes a new trajectory into the arrays."""
        start = self.draw_start(task, outer_step)
        number, j = self._place[task]
        stacked = self._instances[number]
        for name, array in start.instance.items():
            if name not in stacked:
                tasks = len(self.batch.groups[number].tasks)
                stacked[name] = np.stack([np.zeros_like(array)] * tasks)
            stacked[name][j] = array
        self._on_device[number] = None
        self.started_at[task] = outer_step
        self.remaining[task] = start.horizon
        self._log_scale[task] = start.log_scale.mean()
        size = self.batch.layout.block_size
        for replica in self._blocks(task):
            for blocks, values, log_scale in zip(
                replica, start.parameters, start.log_scale, strict=True
            ):
                flat = np.zeros((blocks.stop - blocks.start) * size, np.float32)
                flat[: values.size] = np.ravel(values) * np.float32(np.exp(log_scale))
                self.inner.values[blocks] = flat.reshape(-1, size)
                self._inverse_scale[blocks] = np.exp(-log_scale)
        self._draw_learning_rates(task, self._generator(_REDRAW, outer_step, task))

    def _draw_learning_rates(self, task, generator):
        """Draws the learning rates of a task, alike for all its replicas."""
        if not self._optimizer.takes_initial_rates:
            return
        rates = self.inner.state.log_learning_rate
        options = self.options
        low, high = np.log([options.low_learning_rate, options.high_learning_rate])
        replicas = self._blocks(task)
        shared = generator.random()
        for tensor in range(len(replicas[0])):
            shape = rates[0, replicas[0][tensor]].shape
            fraction = shared
            if options.spread_over_elements:
                fraction = 0.5 * generator.random() + 0.5 * generator.random(shape)
            drawn = low + (high - low) * fraction + self._log_scale[task]
            drawn = np.clip(
                drawn, MIN_LOG_LEARNING_RATE, self._optimizer.max_log_learning_rate
            )
            for replica in replicas:
                rates[0, replica[tensor]] = drawn
