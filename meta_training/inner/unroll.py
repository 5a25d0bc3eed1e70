"""The inner loop: a window of steps of a trainable optimizer on all problems at once.

`Unroll.run` takes the inner state through a window of steps and records objectives;
`Unroll.run_and_differentiate` also takes the gradient of the meta-objective with
respect to the meta-parameters, back through the whole window. Backpropagation is a
second loop that runs the steps in reverse. The first loop keeps the inner state before
every step (24 numbers per parameter for the hierarchical RNN); the second recomputes
each step from it and pulls the gradient through. So memory grows by the state alone,
XLA differentiates one step only, and the gradient can be clipped between two steps.
Without second derivatives the first loop also keeps each step's gradients and slopes,
two more numbers per parameter, and the second evaluates no problem at all.

A diverging problem is *cut off*: from the step at which its objective is not finite or
exceeds a bound, its objectives count as a constant and its gradients as zero. So no
value that is not finite reaches what the problems share.
"""

import math

import tensorflow as tf

from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.windows import Carry, InnerState, UnrollConfig, Window
from meta_training.optimizers.base import TrainableOptimizer

# The gradient through a chaotic window grows without bound. If it overflowed in a step,
# the meta-gradients of all problems would be lost.
LARGEST_FLOW = 1e15


class Unroll:
    """Runs windows of one batch of problems with one optimizer."""

    def __init__(
        self, batch: ProblemBatch, optimizer: TrainableOptimizer, options: UnrollConfig
    ):
        self.batch = batch
        self.optimizer = optimizer
        self.options = options
        self._block_problem = batch.block_problem

    def run(self, meta_parameters, carry: Carry, num_steps, seed) -> Window:
        """A window of `num_steps` steps.

        Args:
            meta_parameters: Their dict, with or without an axis of problems.
            carry: Where the window starts.
            num_steps: Scalar int32, at most `max_steps`.
            seed: Scalar int32: minibatches, noise and zeroing are a function of it.
        """
        inner = self._begin(meta_parameters, carry)
        recorded, _ = self._forward(
            meta_parameters, inner, carry, num_steps, seed, keeps=False
        )
        losses = self.options.losses(*recorded[1:], num_steps)
        return self._window(meta_parameters, recorded, losses, num_steps)

    def run_and_differentiate(self, meta_parameters, carry: Carry, num_steps, seed):
        """The same, and the gradient of the weighted sum of its losses.

        Returns:
            A `Window` and a dict like `meta_parameters`.
        """
        with tf.GradientTape() as begin_tape:
            begin_tape.watch(meta_parameters)
            first_inner = self._begin(meta_parameters, carry)
        recorded, kept = self._forward(
            meta_parameters, first_inner, carry, num_steps, seed, keeps=True
        )
        _, objectives, alive, initial = recorded
        with tf.GradientTape() as tape:
            tape.watch(objectives)
            losses = self.options.losses(objectives, alive, initial, num_steps)
            loss = tf.reduce_sum(carry.weights * losses)
        from_objectives = _finite(tape.gradient(loss, objectives))
        from_inner, gradients = self._backward(
            meta_parameters, kept, carry, alive, from_objectives, num_steps, seed
        )
        at_start = begin_tape.gradient(
            tf.nest.flatten(first_inner),
            meta_parameters,
            output_gradients=from_inner,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = {name: gradients[name] + at_start[name] for name in gradients}
        return self._window(meta_parameters, recorded, losses, num_steps), gradients

    def _begin(self, meta_parameters, carry: Carry) -> InnerState:
        """The inner state with that of fresh problems at its learned start."""
        inner = carry.inner
        values = tf.convert_to_tensor(inner.values)
        attended = tf.convert_to_tensor(inner.attended_values)
        is_fresh = self._by_level(carry.fresh > 0)
        start = self.optimizer.initial_state(
            self.batch.layout, meta_parameters, 0.0, values
        )

        def choose(name, level, fresh, carried):
            # Learning rates are drawn where a trajectory starts, on the host.
            if name == "log_learning_rate":
                return tf.convert_to_tensor(carried)
            return tf.where(is_fresh[level], fresh, carried)

        state = self._map_state(choose, start, inner.state)
        if self.optimizer.uses_attention:
            attended = tf.where(is_fresh["parameter"], values, attended)
        return InnerState(values, attended, state)

    def _by_level(self, by_problem):
        """`[problems]` numbers against the last axes of the fields of each level."""
        by_tensor = tf.gather(by_problem, self.batch.layout.tensor_problem)
        return {
            "parameter": tf.gather(by_problem, self._block_problem)[:, None],
            "tensor": by_tensor,
            "problem": by_problem,
        }

    def _map_state(self, function, *states):
        """A state of `function(name, level, *fields)`, field by field."""
        levels = self.optimizer.state_levels
        names = self.optimizer.state_type._fields
        return self.optimizer.state_type(
            *(
                function(name, levels[name], *fields)
                for name, *fields in zip(names, *states, strict=True)
            )
        )

    def _evaluate(self, inner, alive, initial, carry, seed, step):
        """Evaluates the problems in step `step`: `(evaluation, alive, initial)`.

        The gradients of problems that are cut off are zero.
        """
        batch = self.batch
        attended = inner.values
        if self.optimizer.uses_attention:
            attended = inner.attended_values
        evaluation = batch.evaluate(
            inner.values,
            attended,
            carry.inverse_scale,
            carry.instances,
            batch.draw(seed, step),
        )
        objectives = evaluation.objectives
        is_first = (carry.fresh > 0) & (step == 0)
        initial = tf.where(is_first, tf.stop_gradient(objectives), initial)
        # A comparison with NaN is false, so this refuses it too.
        bound = self.options.divergence_bound * (1.0 + tf.abs(initial))
        alive = alive * tf.cast(tf.abs(objectives) < bound, tf.float32)
        by_block = tf.gather(alive, self._block_problem)[:, None]
        gradients = tf.where(by_block > 0, evaluation.gradients, 0.0)
        return evaluation._replace(gradients=gradients), alive, initial

    def _update(self, meta_parameters, inner, gradients) -> InnerState:
        """The inner state after the step that gradients lead to."""
        update = self.optimizer.update(
            inner.values, gradients, inner.state, self.batch.layout, meta_parameters
        )
        attended = inner.attended_values
        if self.optimizer.uses_attention:
            attended = update.attended_values
        return InnerState(update.values, attended, update.state)

    def _forward(self, meta_parameters, inner, carry, num_steps, seed, keeps: bool):
        """Runs the window.

        Returns:
            The inner state after it, `[max_objectives, problems]` objectives and
            `alive` flags, the first objectives; and, if `keeps`, the input of
            `_backward` for each step as a list of TensorArrays.
        """
        size = self.options.max_objectives
        objectives = tf.TensorArray(tf.float32, size, element_shape=carry.alive.shape)
        lives = tf.TensorArray(tf.float32, size, element_shape=carry.alive.shape)
        flat = tf.nest.flatten(inner)
        # Without second derivatives gradients and slopes, too, each like the values.
        keeps_gradients = keeps and not self.options.second_derivatives
        shapes = [part.shape for part in flat] if keeps else []
        shapes += [inner.values.shape] * 2 if keeps_gradients else []
        kept = [
            tf.TensorArray(tf.float32, size, element_shape=shape) for shape in shapes
        ]
        count = self.options.num_objectives(num_steps)

        def body(step, flat, last, alive, initial, objectives, lives, kept):
            current = tf.nest.pack_sequence_as(inner, flat)
            found, alive, initial = self._evaluate(
                current, alive, initial, carry, seed, step
            )
            parts = list(flat) if keeps else []
            parts += [found.gradients, found.slopes()] if keeps_gradients else []
            kept = [
                array.write(step, part) for array, part in zip(kept, parts, strict=True)
            ]
            new = self._update(meta_parameters, current, found.gradients)
            # With corrected counting there is a step after the last objective; the
            # state before it is the result.
            handed_on = flat if self.options.counting == "corrected" else last
            return (
                step + 1,
                tf.nest.flatten(new),
                handed_on,
                alive,
                initial,
                objectives.write(step, found.objectives),
                lives.write(step, alive),
                kept,
            )

        last = flat if self.options.counting == "corrected" else []
        _, flat, last, _, initial, objectives, lives, kept = tf.while_loop(
            lambda step, *_: step < count,
            body,
            (
                tf.zeros([], tf.int32),
                flat,
                last,
                tf.where(carry.fresh > 0, 1.0, carry.alive),
                tf.convert_to_tensor(carry.initial_objective),
                objectives,
                lives,
                kept,
            ),
        )
        if self.options.counting == "corrected":
            flat = last
        final = tf.nest.pack_sequence_as(inner, flat)
        return (final, objectives.stack(), lives.stack(), initial), kept

    def _backward(
        self, meta_parameters, kept, carry, alive, from_objectives, num_steps, seed
    ):
        """Pulls the gradient of the loss back through the window.

        Returns:
            Gradients with respect to the inner state at its start (a flat list) and
            to the meta-parameters.
        """
        names = list(meta_parameters)
        meta_values = [tf.convert_to_tensor(meta_parameters[name]) for name in names]
        state_type = self.optimizer.state_type
        structure = InnerState(0, 0, state_type(*([0] * len(state_type._fields))))
        parts = len(tf.nest.flatten(structure))
        bound = None
        if self.options.clip_through_time is not None:
            bound = self.options.clip_through_time * carry.weights

        def body(step, from_inner, gradients):
            step = step - 1
            meta = dict(zip(names, meta_values, strict=True))
            read = [array.read(step) for array in kept]
            inner = tf.nest.pack_sequence_as(structure, read[:parts])
            from_step = tf.gather(from_objectives, step)
            if self.options.second_derivatives:
                pulled = self._pull(
                    meta, inner, from_inner, from_step, carry, alive, seed, step
                )
            else:
                pulled = self._pull_kept(
                    meta, inner, *read[parts:], from_inner, from_step
                )
            count = len(meta_values)
            gradients = [a + b for a, b in zip(gradients, pulled[:count], strict=True)]
            from_inner = self._clip(
                tf.nest.pack_sequence_as(structure, pulled[count:]), bound, carry
            )
            return step, tf.nest.flatten(from_inner), gradients

        zeros = [tf.zeros(array.element_shape, tf.float32) for array in kept[:parts]]
        _, from_inner, gradients = tf.while_loop(
            lambda step, *_: step > 0,
            body,
            (
                self.options.num_objectives(num_steps),
                zeros,
                [tf.zeros_like(value) for value in meta_values],
            ),
        )
        return from_inner, dict(zip(names, gradients, strict=True))

    def _pull(self, meta, inner, from_inner, from_objectives, carry, alive, seed, step):
        """Pulls the gradient back through a step, with second derivatives.

        Returns:
            Gradients with respect to the meta-parameters and the parts of the inner
            state before the step, one list.
        """
        alive_before = tf.where(carry.fresh > 0, 1.0, carry.alive)
        alive_before = tf.where(
            step > 0, tf.gather(alive, tf.maximum(step - 1, 0)), alive_before
        )
        # Only the divergence bound reads it, and `alive` is known already.
        initial = tf.convert_to_tensor(carry.initial_objective)
        initial = tf.where(carry.fresh > 0, math.inf, initial)
        sources = [*meta.values(), *tf.nest.flatten(inner)]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            found, _, _ = self._evaluate(
                inner, alive_before * tf.gather(alive, step), initial, carry, seed, step
            )
            new = self._update(meta, inner, found.gradients)
        return tape.gradient(
            [*tf.nest.flatten(new), found.objectives],
            sources,
            output_gradients=[*from_inner, from_objectives],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def _pull_kept(self, meta, inner, gradients, slopes, from_inner, from_objectives):
        """The same without second derivatives and without another evaluation.

        Gradients and slopes of the step are constants that `_forward` kept.
        """
        sources = [*meta.values(), *tf.nest.flatten(inner)]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            new = self._update(meta, inner, gradients)
        pulled = tape.gradient(
            tf.nest.flatten(new),
            sources,
            output_gradients=from_inner,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        by_block = tf.gather(from_objectives, self._block_problem)[:, None]
        # The slopes of a problem that is cut off may not be finite; they count as 0.
        through_objectives = tf.where(by_block == 0, 0.0, by_block * slopes)
        pulled[len(meta)] += through_objectives
        return pulled

    def _clip(self, gradient: InnerState, bound, carry) -> InnerState:
        """The gradient for the step before, finite and within the bound."""
        gradient = tf.nest.map_structure(_finite, gradient)
        if bound is None:
            return tf.nest.map_structure(
                lambda part: tf.clip_by_value(part, -LARGEST_FLOW, LARGEST_FLOW),
                gradient,
            )
        bounds = self._by_level(bound)
        # Parameters are clipped at the scale of the task.
        of_values = bounds["parameter"] * carry.inverse_scale
        state = self._map_state(
            lambda name, level, part: _clip_by(part, bounds[level]), gradient.state
        )
        attended = gradient.attended_values
        if self.optimizer.uses_attention:
            attended = _clip_by(attended, of_values)
        return InnerState(_clip_by(gradient.values, of_values), attended, state)

    def _window(self, meta_parameters, recorded, losses, num_steps) -> Window:
        inner, objectives, alive, initial = recorded
        layout = self.batch.layout
        log_rates = self.optimizer.log_learning_rates(
            inner.state, layout, meta_parameters
        )
        rates = tf.zeros([layout.num_problems])
        if log_rates is not None:
            sums = tf.reduce_sum(log_rates * layout.mask(), axis=-1)
            sums = tf.math.unsorted_segment_sum(
                sums, self._block_problem, layout.num_problems
            )
            elements = tf.math.unsorted_segment_sum(
                layout.tensor_elements, layout.tensor_problem, layout.num_problems
            )
            rates = sums / elements
        last = self.options.num_objectives(num_steps) - 1
        # Not `alive[last]`, for which XLA would compile anew for each length.
        alive_at_end = tf.gather(alive, last)
        return Window(inner, alive_at_end, initial, objectives, losses, rates)


def _finite(x):
    return tf.where(tf.math.is_finite(x), x, 0.0)


def _clip_by(x, bound):
    return tf.clip_by_value(x, -bound, bound)
