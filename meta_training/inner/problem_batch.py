"""Many tasks side by side: packed for the update rule, evaluated by group.

Tasks of equal `batch_key` form a *group*, evaluated in one batched computation. The
packed array of the update rule holds, group by group and tensor by tensor, that tensor
of all problems of the group:

    group 0: tensor 0 of problems 0, 1, 2 | tensor 1 of problems 0, 1, 2
    group 1: tensor 0 of problems 3, 4    | ...

so a `[problems, *shape]` tensor of a group is contiguous in the packed array: packing
is a reshape, a pad and one concatenation, unpacking a split, and XLA never gathers
single elements. A *problem* is a task, or one of several replicas of it (an antithetic
pair, for instance): replicas share instance, minibatches and noise, and differ in their
parameters and in the meta-parameters that update them.

A batch may be divided into *parts*, each with separate groups that are contiguous:
`parts` has the batch of each, in the same layout as in the whole.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.layout import Layout
from meta_training.inner.groups import (
    Group,
    deal_out,
    disturb,
    objective_of,
    replicate,
)
from meta_training.tasks.base import Task, grouped

# Larger gradients would overflow when squared; they count as none.
LARGEST_GRADIENT = 1e15


class Draws(NamedTuple):
    """The random numbers of one inner step, as dicts by group number.

    A group that needs none has no entry.

    Attributes:
        rows: `[tasks, batch]` int32, the rows of the minibatches.
        objective_start: Scalar int32, the first row of the recorded objective.
        noise: `[tasks, elements]` standard normal.
        zeroing: `[tasks, elements]`, uniform in [0, 1).
    """

    rows: dict[int, Any]
    objective_start: dict[int, Any]
    noise: dict[int, Any]
    zeroing: dict[int, Any]


class Evaluation(NamedTuple):
    """Objectives and gradients of all problems at one point.

    Attributes:
        objectives: `[problems]`, at `values`.
        gradients: `[blocks, block_size]`, the optimizer's input, finite.
        slopes: A function that returns `[blocks, block_size]`, the derivative of each
            problem's objective with respect to its values, without minibatch, noise or
            zeroing, and not always finite. It costs another evaluation.
    """

    objectives: tf.Tensor
    gradients: tf.Tensor
    slopes: Callable[[], tf.Tensor]


class ProblemBatch:
    """The tasks of a set, and replicas of them, as one computation.

    Attributes:
        tasks: The tasks, in the order given.
        groups: The groups, in the order of their first tasks.
        layout: The position of every tensor of every problem in the packed array.
        problem_task: `[problems]`, the task of each problem.
        num_parts: How many parts there are, each with one task or more.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        block_size: int = 16,
        replicas: int = 1,
        objective_rows: int | None = None,
        parts: int = 1,
    ):
        """Groups the tasks.

        Args:
            tasks: One or more.
            block_size: Elements per block of the packed array.
            replicas: Problems per task.
            objective_rows: Rows of data on which the recorded objective is
                evaluated, starting at a row drawn anew each step; None: all of them. A
                task without minibatches records all of them where its gradient is
                taken at the same point (no attention), at no extra cost.
            parts: Of about equal cost; fewer if there are fewer tasks.
        """
        if not tasks:
            raise ValueError("tasks must be one or more. Received: none")
        self.tasks = tuple(tasks)
        self.objective_rows = objective_rows
        self._task_part = deal_out(self.tasks, parts, objective_rows)
        self.num_parts = int(self._task_part.max()) + 1
        self.groups: list[Group] = []
        shapes, problems = [], []
        for indices in grouped(
            np.argsort(self._task_part, kind="stable").tolist(),
            lambda index: (self._task_part[index], tasks[index].batch_key),
        ):
            group = Group(
                tuple(tasks[index] for index in indices),
                tuple(indices),
                self.groups[-1].problems.stop if self.groups else 0,
                len(shapes),
                replicas,
            )
            for shape in group.task.parameter_shapes:
                shapes += [shape] * group.num_problems
                problems += range(group.problems.start, group.problems.stop)
            self.groups.append(group)
        self.layout = Layout.from_shapes(shapes, block_size, problems=problems)
        self.problem_task = np.concatenate(
            [np.tile(group.members, replicas) for group in self.groups]
        ).astype(np.int32)

    def parts(self) -> list[tuple["ProblemBatch", dict[str, slice]]]:
        """The batch of each part's tasks, and its slices of the arrays of the whole.

        They go by level; `group` is that of the groups.
        """
        batches = [
            ProblemBatch(
                [self.tasks[i] for i in np.flatnonzero(self._task_part == number)],
                self.layout.block_size,
                self.groups[0].replicas,
                self.objective_rows,
            )
            for number in range(self.num_parts)
        ]
        sizes = {
            "group": [len(batch.groups) for batch in batches],
            "parameter": [batch.layout.num_blocks for batch in batches],
            "tensor": [batch.layout.num_tensors for batch in batches],
            "problem": [batch.num_problems for batch in batches],
        }
        bounds: list[dict[str, slice]] = [{} for _ in batches]
        for level, counts in sizes.items():
            ends = np.cumsum(counts).tolist()
            for own, start, end in zip(bounds, [0, *ends], ends, strict=False):
                own[level] = slice(start, end)
        return list(zip(batches, bounds, strict=True))

    @property
    def num_problems(self) -> int:
        """Number of problems, replicas counted."""
        return self.layout.num_problems

    @property
    def block_problem(self) -> np.ndarray:
        """`[blocks]`, the problem of each block."""
        return self.layout.tensor_problem[self.layout.block_tensor]

    def blocks_of(self, group: Group, problem: int) -> list[slice]:
        """The blocks of each tensor of the group's problem number `problem`."""
        return [
            self.layout.blocks_of(group.first_tensor + i * group.num_problems + problem)
            for i in range(len(group.task.parameter_shapes))
        ]

    def _pieces(self):
        """`(group, shape, packed elements)` of each `[problems, *shape]` tensor."""
        for group in self.groups:
            for shape in group.task.parameter_shapes:
                blocks = math.ceil(math.prod(shape) / self.layout.block_size)
                yield group, shape, blocks * self.layout.block_size

    def pack(self, parameters: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
        """Packs `[problems, *shape]` tensors, given as one list per group."""
        flat = [tensor for tensors in parameters for tensor in tensors]
        pieces = []
        for tensor, (group, shape, length) in zip(flat, self._pieces(), strict=True):
            count = math.prod(shape)
            rows = tf.reshape(tensor, [group.num_problems, count])
            if length > count:
                rows = tf.pad(rows, [[0, 0], [0, length - count]])
            pieces.append(tf.reshape(rows, [-1]))
        flat = tf.concat(pieces, axis=0) if len(pieces) > 1 else pieces[0]
        return tf.reshape(flat, [-1, self.layout.block_size])

    def unpack(self, packed: tf.Tensor) -> list[list[tf.Tensor]]:
        """The `[problems, *shape]` tensors of each group."""
        pieces = list(self._pieces())
        lengths = [group.num_problems * length for group, _, length in pieces]
        # The gradient of a split is one concatenation; that of slices would be a sum
        # of arrays of full size.
        flat = tf.split(tf.reshape(packed, [-1]), lengths)
        tensors = []
        for (group, shape, length), values in zip(pieces, flat, strict=True):
            rows = tf.reshape(values, [group.num_problems, length])
            rows = rows[:, : math.prod(shape)]
            tensors.append(tf.reshape(rows, [group.num_problems, *shape]))
        remaining = iter(tensors)
        return [
            [next(remaining) for _ in group.task.parameter_shapes]
            for group in self.groups
        ]

    def draw(self, seed: tf.Tensor, step: tf.Tensor) -> Draws:
        """The random numbers of an inner step, a function of two int32 scalars."""
        draws = Draws({}, {}, {}, {})
        uniform, normal = [], []
        for number, group in enumerate(self.groups):
            task, tasks = group.task, len(group.tasks)
            if task.batch_size is not None:
                uniform.append((draws.rows, number, (tasks, task.batch_size)))
            if task.rows is not None and (self.objective_rows or task.rows) < task.rows:
                uniform.append((draws.objective_start, number, ()))
            if group.per_task("gradient_zero_probability").any():
                uniform.append((draws.zeroing, number, (tasks, task.parameter_count)))
            if group.per_task("noise_stdev").any():
                normal.append((draws.noise, number, (tasks, task.parameter_count)))
        for kind, sample, wanted in (
            (0, tf.random.stateless_uniform, uniform),
            (1, tf.random.stateless_normal, normal),
        ):
            if not wanted:
                continue
            # One call for all groups, since each call is a separate kernel.
            lengths = [math.prod(shape) for _, _, shape in wanted]
            values = sample([sum(lengths)], tf.stack([seed, 2 * step + kind]))
            for (target, number, shape), piece in zip(
                wanted, tf.split(values, lengths), strict=True
            ):
                target[number] = tf.reshape(piece, shape)
        for target in (draws.rows, draws.objective_start):
            for number, values in target.items():
                rows = self.groups[number].task.rows
                if target is draws.objective_start:
                    rows = rows - self.objective_rows + 1
                # A uniform number can round up to 1.
                target[number] = tf.minimum(tf.cast(values * rows, tf.int32), rows - 1)
        return draws

    def evaluate(
        self,
        values: tf.Tensor,
        gradient_values: tf.Tensor,
        inverse_scale: tf.Tensor,
        instances: Sequence[dict[str, tf.Tensor]],
        draws: Draws,
    ) -> Evaluation:
        """The objectives of all problems, and the gradients for the optimizer.

        Args:
            values: `[blocks, block_size]`, where objectives are recorded.
            gradient_values: The same, where gradients are taken (the attended
                location; `values` itself without attention).
            inverse_scale: `[blocks, 1]`: the tasks are evaluated at the parameters
                times this factor, and their gradients are multiplied by it.
            instances: The stacked instances of the tasks of each group.
            draws: The result of `draw`.

        Returns:
            Objectives on all rows of data or `objective_rows` of them, and gradients
            on minibatches, with noise and zeroed elements.
        """
        same_place = gradient_values is values
        parameters = self.unpack(gradient_values * inverse_scale)
        recorded_at = parameters
        if not same_place:
            recorded_at = self.unpack(values * inverse_scale)
        losses = []
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            for number, group in enumerate(self.groups):
                instance = replicate(instances[number], group.replicas)
                batch = instance
                if number in draws.rows:
                    rows = tf.tile(draws.rows[number], [group.replicas, 1])
                    batch = group.task.minibatch(instance, rows)
                losses.append(objective_of(group, parameters[number], batch))
        objectives = list(losses)
        # The groups whose objective is not what the gradient is taken of.
        apart = [
            number
            for number in range(len(self.groups))
            if number in draws.rows or not same_place
        ]
        with tf.GradientTape() as objective_tape:
            objective_tape.watch([recorded_at[number] for number in apart])
            for number in apart:
                group = self.groups[number]
                instance = replicate(instances[number], group.replicas)
                if number in draws.objective_start:
                    start = draws.objective_start[number]
                    window = start + tf.range(self.objective_rows)
                    for name in group.task.row_arrays:
                        # Not a slice: XLA would want its start, and so the seed, as a
                        # constant, and compile anew for each.
                        instance[name] = tf.gather(instance[name], window, axis=1)
                objectives[number] = objective_of(group, recorded_at[number], instance)
        plain = tape.gradient(
            losses, parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

        def slopes():
            found = objective_tape.gradient(
                [objectives[number] for number in apart],
                [recorded_at[number] for number in apart],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            own = dict(zip(apart, found, strict=True))
            return inverse_scale * self.pack(
                [own.get(number, gradient) for number, gradient in enumerate(plain)]
            )

        gradients = self.pack(
            [
                disturb(gradient, group, draws.noise.get(i), draws.zeroing.get(i))
                for i, (gradient, group) in enumerate(
                    zip(plain, self.groups, strict=True)
                )
            ]
        )
        gradients = gradients * inverse_scale
        usable = tf.abs(gradients) < LARGEST_GRADIENT
        return Evaluation(
            tf.concat(objectives, axis=0), tf.where(usable, gradients, 0.0), slopes
        )
