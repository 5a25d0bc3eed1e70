"""The inner training loop of stacked runs, compiled once by XLA and called often.

A run is one optimizer setting on one draw (see `draws`). All runs go side by side
along the leading axis; minibatches and noise are made once a draw and shared by its
runs. Losses are those of the whole training set, recorded at given steps.
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


class Runs(NamedTuple):
    """What came of stacked runs.

    Attributes:
        record_steps: `[records]`, ascending from 0.
        losses: `[records, runs]` on the whole training set; may be non-finite.
        values: the final parameters, `[runs, *shape]` a tensor, where the last losses
            were recorded.
        seconds: how long the loop ran, without its compilation.
    """

    record_steps: np.ndarray
    losses: np.ndarray
    values: list[np.ndarray]
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
        self._has_noise = bool(np.any(draws.noise_stdev > 0))
        self._has_zeros = bool(np.any(draws.gradient_zero_probability > 0))
        self._compiled = tf.function(self._train, autograph=False, jit_compile=True)
        self._concrete = None

    def load(self, draws: Draws) -> None:
        """Takes draws of the same shapes; nothing is compiled anew."""
        self._draws = {
            "instance": {k: tf.constant(v) for k, v in draws.instance.items()},
            "start": [tf.constant(value) for value in draws.start],
            "row_indices": tf.constant(draws.row_indices),
            "noise_stdev": tf.constant(draws.noise_stdev),
            "zero_probability": tf.constant(draws.gradient_zero_probability),
        }

    def _has_large_instances(self, draws):
        """Whether runs share instances; they must come in whole sets of draws."""
        count = len(draws.tasks)
        each = sum(array.nbytes for array in draws.instance.values()) / count
        settings = len(self.draw_of_run) // count
        return (
            self.task.batch_size is None
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
        if record_steps[0] != 0 or np.any(np.diff(record_steps) < 0):
            raise ValueError(
                f"record_steps must ascend from 0, received {record_steps.tolist()}"
            )
        if record_steps[-1] > steps:
            raise ValueError(
                f"record_steps must not exceed the {steps} steps that minibatches "
                f"were drawn for, received {record_steps[-1]}"
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
        losses, values = self._concrete(marks, arguments, self._draws)
        losses = losses.numpy()
        seconds = time.perf_counter() - begin
        return Runs(record_steps, losses, [value.numpy() for value in values], seconds)

    def _train(self, record_steps, arguments, draws):
        """The loop over records, each a loop over steps: losses and final values."""
        draw_of_run = tf.constant(self.draw_of_run)
        values = [tf.gather(value, draw_of_run) for value in draws["start"]]
        state = self.optimizer.start(values, arguments)
        fixed = self._fixed_arrays(draws, draw_of_run)
        records = record_steps.shape[0]
        losses = tf.TensorArray(
            tf.float32, records, element_shape=[len(self.draw_of_run)]
        )

        def loss(values, state):
            values = self.optimizer.evaluation_values(values, state)
            return self._whole_loss(values, draws, fixed, draw_of_run)

        losses = losses.write(0, loss(values, state))

        def step(iteration, values, state):
            gradients = self._gradients(
                self.optimizer.gradient_values(values, state),
                iteration,
                draws,
                fixed,
                draw_of_run,
            )
            values, state = self.optimizer.step(
                values, gradients, state, iteration, arguments
            )
            return iteration + 1, values, state

        def record(index, losses, values, state):
            _, values, state = tf.while_loop(
                lambda iteration, *_: iteration < record_steps[index],
                step,
                (record_steps[index - 1], values, state),
            )
            return index + 1, losses.write(index, loss(values, state)), values, state

        _, losses, values, state = tf.while_loop(
            lambda index, *_: index < records,
            record,
            (tf.constant(1), losses, values, state),
            maximum_iterations=records,
        )
        return losses.stack(), self.optimizer.evaluation_values(values, state)

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
        if self._shares_instances:
            _, gradients = self._by_setting(values, instance)
        else:
            _, gradients = self._differentiate(values, instance)
        if not (self._has_noise or self._has_zeros):
            return gradients
        return [
            self._disturb(gradient, index, iteration, draws, draw_of_run)
            for index, gradient in enumerate(gradients)
        ]

    def _differentiate(self, values, instance):
        """The objectives `[runs]` and their gradients."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = self.task.objective(values, instance)
        return losses, tape.gradient(
            losses, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def _by_setting(self, values, instance):
        """The same, one set of draws after the other on the same instances."""
        shapes = [value.shape for value in values]
        count = next(iter(instance.values())).shape[0]
        specifications = [tf.TensorSpec([count, *shape[1:]]) for shape in shapes]
        losses, gradients = tf.map_fn(
            lambda own: self._differentiate(own, instance),
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

    def _whole_loss(self, values, draws, fixed, draw_of_run):
        """`[runs]` objectives on all rows, a group of runs at a time."""
        if self._shares_instances:
            return self._by_setting(values, fixed)[0]
        if self.task.batch_size is None:
            return self.task.objective(values, fixed)
        size = group_size(len(self.draw_of_run), self.task.rows)

        def grouped(tensor):
            return tf.reshape(tensor, [-1, size, *tensor.shape[1:]])

        def group_loss(group):
            values, draw_of_group, fixed = group
            instance = {
                name: fixed[name] if name in fixed else tf.gather(array, draw_of_group)
                for name, array in draws["instance"].items()
            }
            return self.task.objective(values, instance)

        groups = tf.nest.map_structure(grouped, (values, draw_of_run, fixed))
        losses = tf.map_fn(
            group_loss,
            groups,
            fn_output_signature=tf.TensorSpec([size], tf.float32),
            parallel_iterations=1,
        )
        return tf.reshape(losses, [-1])


def group_size(runs: int, rows: int) -> int:
    """The largest divisor of `runs` that keeps rows times runs within bounds."""
    fitting = [
        size
        for size in range(1, runs + 1)
        if runs % size == 0 and size * rows <= _ROWS_AT_ONCE
    ]
    return max(fitting, default=1)
