"""The inner training loop of stacked runs, compiled once by XLA and called often.

A run is one optimizer setting on one draw (see `draws`). All runs go side by side
along the leading axis; minibatches and noise are made once a draw and shared by its
runs. Losses are those of the whole training set, recorded at given steps. Where a task
has batch normalisation the loop carries its running averages, as Keras does.
"""

import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_training.runs.draws import Draws
from meta_training.tasks.base import Task, broadcast_tasks

# Instances that would take more bytes, were each run given its own copy, are shared:
# a quadratic in 2,048 dimensions has 16 MB.
_COPIED_BYTES = 128_000_000
# Rows of data times runs that the whole training set is evaluated on at once: with
# more, activations leave the cache, and those of a few hundred runs take gigabytes.
_ROWS_AT_ONCE = 4_000
# Of the running averages of batch normalisation, as in Keras.
AVERAGES_MOMENTUM = 0.99


class Runs(NamedTuple):
    """What came of stacked runs.

    Attributes:
        record_steps: `[records]`, ascending from 0.
        losses: `[records, runs]` on the whole training set, batch normalisation going
            by its statistics; may be non-finite.
        evaluation_losses: the same under running averages, what `evaluate` of Keras
            gives; `losses` themselves where a task has none.
        values: the final parameters, `[runs, *shape]` a tensor, where the last losses
            were recorded.
        averages: the running averages at the end, `[runs, *shape]` a tensor.
        seconds: how long the loop ran, without its compilation.
    """

    record_steps: np.ndarray
    losses: np.ndarray
    evaluation_losses: np.ndarray
    values: list[np.ndarray]
    averages: list[np.ndarray]
    seconds: float


class TrainingLoop:
    """A compiled loop for one `batch_key`, one optimizer and one number of runs.

    Args:
        task: one of the tasks of the draws.
        optimizer: an optimizer of runs, see `baselines`.
        draw_of_run: `[runs]`, the draw each run trains on.
        draws: the arrays of these or of equally shaped draws can be trained on.
    """

    def __init__(self, task: Task, optimizer, draw_of_run, draws: Draws):
        self.task = task
        self.optimizer = optimizer
        self.draw_of_run = np.asarray(draw_of_run, np.int32)
        self.load(draws)
        self._shares_instances = self._has_large_instances(draws)
        self._has_noise = any(draws.per_draw("noise_stdev") > 0)
        self._has_zeros = any(draws.per_draw("gradient_zero_probability") > 0)
        self._compiled = tf.function(self._train, autograph=False, jit_compile=True)
        self._concrete = None

    def load(self, draws: Draws) -> None:
        """Takes draws of the same shapes; nothing is compiled anew."""
        self._draws = {
            "instance": {k: tf.constant(v) for k, v in draws.instance.items()},
            "start": [tf.constant(value) for value in draws.start],
            "row_indices": tf.constant(draws.row_indices),
            "noise_stdev": tf.constant(draws.per_draw("noise_stdev")),
            "zero_probability": tf.constant(
                draws.per_draw("gradient_zero_probability")
            ),
        }

    def _has_large_instances(self, draws):
        """Whether runs share instances; they must come in whole sets of draws."""
        count = len(draws.tasks)
        each = sum(array.nbytes for array in draws.instance.values()) / count
        settings = len(self.draw_of_run) // count
        return (
            self.task.batch_size is None
            and not self.task.statistics_shapes
            and each * len(self.draw_of_run) > _COPIED_BYTES
            and np.array_equal(self.draw_of_run, np.tile(np.arange(count), settings))
        )

    def __call__(self, record_steps, arguments) -> Runs:
        """Trains all runs.

        Args:
            record_steps: `[records]` ascending from 0 to the last step; their number
                is part of the compilation, their values are not.
            arguments: of the optimizer, as arrays or tensors.
        """
        record_steps = np.asarray(record_steps, np.int32)
        steps = self._draws["row_indices"].shape[0]
        if record_steps[-1] > steps:
            raise ValueError(
                f"record_steps must not exceed the {steps} steps that minibatches "
                f"were drawn for. Received: {record_steps[-1]}"
            )
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        marks = tf.constant(record_steps)
        if self._concrete is None:
            self._concrete = self._compiled.get_concrete_function(
                marks, arguments, self._draws
            )
            # A run of no steps makes XLA compile; so the time that is reported is that
            # of the steps.
            self._concrete(tf.zeros_like(marks), arguments, self._draws)
        begin = time.perf_counter()
        found = self._concrete(marks, arguments, self._draws)
        found = tf.nest.map_structure(lambda tensor: tensor.numpy(), found)
        seconds = time.perf_counter() - begin
        return Runs(record_steps, *found, seconds)

    def _train(self, record_steps, arguments, draws):
        """The loop over records, each a loop over steps: losses and final values."""
        draw_of_run = tf.constant(self.draw_of_run)
        values = [tf.gather(value, draw_of_run) for value in draws["start"]]
        state = self.optimizer.start(values, arguments)
        fixed = self._fixed_arrays(draws, draw_of_run)
        records = record_steps.shape[0]
        runs = len(self.draw_of_run)
        # Means start at 0 and variances at 1.
        averages = [
            tf.fill([runs, *shape], float(index % 2))
            for index, shape in enumerate(self.task.statistics_shapes)
        ]
        losses = tf.TensorArray(tf.float32, records, element_shape=[2, runs])

        def step(iteration, values, averages, state):
            gradients, statistics = self._gradients(
                self.optimizer.gradient_values(values, state),
                iteration,
                draws,
                fixed,
                draw_of_run,
            )
            averages = [
                average + (1 - AVERAGES_MOMENTUM) * (statistic - average)
                for average, statistic in zip(averages, statistics, strict=True)
            ]
            values, state = self.optimizer.step(
                values, gradients, state, iteration, arguments
            )
            return iteration + 1, values, averages, state

        def evaluate(values, averages, state):
            values = self.optimizer.evaluation_values(values, state)
            shared = draws, fixed, draw_of_run
            loss, statistics = self._whole_loss(values, None, *shared)
            evaluation_loss = loss
            if self.optimizer.fresh_statistics:
                averages = statistics
            elif averages:
                evaluation_loss, _ = self._whole_loss(values, averages, *shared)
            return tf.stack([loss, evaluation_loss]), values, averages

        def record(index, losses, values, averages, state):
            _, values, averages, state = tf.while_loop(
                lambda iteration, *_: iteration < record_steps[index],
                step,
                (record_steps[index - 1], values, averages, state),
            )
            loss, *_ = evaluate(values, averages, state)
            return index + 1, losses.write(index, loss), values, averages, state

        losses = losses.write(0, evaluate(values, averages, state)[0])
        _, losses, *final = tf.while_loop(
            lambda index, *_: index < records,
            record,
            (tf.constant(1), losses, values, averages, state),
            maximum_iterations=records,
        )
        _, values, averages = evaluate(*final)
        losses = losses.stack()
        return losses[:, 0], losses[:, 1], values, averages

    def _fixed_arrays(self, draws, draw_of_run):
        """The instance arrays that are the same at every step, a run each."""
        if self._shares_instances:
            return draws["instance"]
        return {
            name: tf.gather(array, draw_of_run)
            for name, array in draws["instance"].items()
            if self.task.batch_size is None or name not in self.task.row_arrays
        }

    def _gradients(self, values, iteration, draws, fixed, draw_of_run):
        instance = fixed
        if self.task.batch_size is not None:
            minibatch = self.task.minibatch(
                draws["instance"], draws["row_indices"][iteration]
            )
            instance = {
                name: fixed[name] if name in fixed else tf.gather(array, draw_of_run)
                for name, array in minibatch.items()
            }
        statistics = []
        if self._shares_instances:
            _, gradients = self._by_setting(values, instance)
        else:
            _, gradients, statistics = self._differentiate(values, instance)
        if self._has_noise or self._has_zeros:
            gradients = [
                self._disturb(gradient, index, iteration, draws, draw_of_run)
                for index, gradient in enumerate(gradients)
            ]
        return gradients, statistics

    def _differentiate(self, values, instance):
        """The objectives `[runs]`, their gradients, and batch statistics."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses, statistics = self.task.objective_and_statistics(values, instance)
        gradients = tape.gradient(
            losses, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return losses, gradients, statistics

    def _by_setting(self, values, instance):
        """The same, one set of draws after the other on the same instances."""
        shapes = [value.shape for value in values]
        count = next(iter(instance.values())).shape[0]
        specifications = [tf.TensorSpec([count, *shape[1:]]) for shape in shapes]
        losses, gradients = tf.map_fn(
            lambda own: self._differentiate(own, instance)[:2],
            [tf.reshape(value, [-1, count, *value.shape[1:]]) for value in values],
            fn_output_signature=(tf.TensorSpec([count]), specifications),
            parallel_iterations=1,
        )
        return tf.reshape(losses, [-1]), [
            tf.reshape(gradient, shape)
            for gradient, shape in zip(gradients, shapes, strict=True)
        ]

    def _disturb(self, gradient, index, iteration, draws, draw_of_run):
        """Gradient noise, then zeros, drawn once a draw."""
        shape = [draws["noise_stdev"].shape[0], *gradient.shape[1:]]
        if self._has_noise:
            noise = tf.random.stateless_normal(shape, [2 * index, iteration])
            noise *= broadcast_tasks(draws["noise_stdev"], noise)
            gradient += tf.gather(noise, draw_of_run)
        if self._has_zeros:
            chance = tf.random.stateless_uniform(shape, [2 * index + 1, iteration])
            keep = chance >= broadcast_tasks(draws["zero_probability"], chance)
            gradient = tf.where(tf.gather(keep, draw_of_run), gradient, 0.0)
        return gradient

    def _whole_loss(self, values, averages, draws, fixed, draw_of_run):
        """`[runs]` objectives on all rows, a group of runs at a time, and statistics.

        Batch normalisation goes by `averages`, or by the statistics of all rows.
        """
        if self._shares_instances:
            return self._by_setting(values, fixed)[0], []
        if self.task.batch_size is None:
            return self.task.objective_and_statistics(values, fixed, averages)
        rows = self.task.recorded_rows or self.task.rows
        size = group_size(len(self.draw_of_run), rows)

        def grouped(tensor):
            return tf.reshape(tensor, [-1, size, *tensor.shape[1:]])

        def group_loss(group):
            values, averages, draw_of_group, fixed = group
            instance = {
                name: fixed[name]
                if name in fixed
                else tf.gather(array[:, :rows], draw_of_group)
                for name, array in draws["instance"].items()
            }
            return self.task.objective_and_statistics(
                values, instance, averages or None
            )

        groups = (values, averages or [], draw_of_run, fixed)
        found = tf.map_fn(
            group_loss,
            tf.nest.map_structure(grouped, groups),
            fn_output_signature=(
                tf.TensorSpec([size], tf.float32),
                [tf.TensorSpec([size, *s]) for s in self.task.statistics_shapes],
            ),
            parallel_iterations=1,
        )
        return tf.nest.map_structure(
            lambda tensor: tf.reshape(tensor, [-1, *tensor.shape[2:]]), found
        )


def group_size(runs: int, rows: int) -> int:
    """The largest divisor of `runs` that keeps rows times runs within bounds."""
    fitting = [
        size
        for size in range(1, runs + 1)
        if runs % size == 0 and size * rows <= _ROWS_AT_ONCE
    ]
    return max(fitting, default=1)
