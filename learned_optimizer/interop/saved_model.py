"""What an exported optimizer computes: its signatures, and the meta-parameters.

    init(row_lengths, initial_learning_rate) -> state
    init_with_total_steps(row_lengths, initial_learning_rate, total_steps) -> state
    update(gradients, values, row_lengths, learning_rate, **state) -> values, state

The arrays are those of `ragged.py`; `docs/export.md` lists them for those who load the
SavedModel without this package. On disk and back it gets in `saved_model_files.py`.
"""

import math

import tensorflow as tf

from learned_optimizer.interop import ragged
from learned_optimizer.interop.weight_files import Weights
from learned_optimizer.rule.meta_parameters import specifications


class ExportedOptimizer(tf.Module):
    """The update rule with its meta-parameters, for any tensors of any shapes.

    Attributes:
        config: The architecture.
        meta_parameters: `[numbers]` float32 variable, the arrays one after another in
            the order of `specifications(config)`; one variable for all, since every
            further one costs more room in the SavedModel than its numbers do.
    """

    def __init__(self, weights: Weights):
        super().__init__(name="hierarchical_rnn")
        self.config = weights.config
        self._specifications = tuple(specifications(weights.config))
        self.meta_parameters = tf.Variable(
            weights.to_flat(), trainable=False, name="meta_parameters"
        )

    def init(self, row_lengths, initial_learning_rate, total_steps):
        """The state before the first update, see `ragged.initial`; integers: int64."""
        rates = initial_learning_rate
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(row_lengths >= 0),
                ["`row_lengths` must be 0 or more. Received:", row_lengths],
            ),
            tf.debugging.Assert(
                tf.reduce_all((rates > 0) & tf.math.is_finite(rates)),
                ["`initial_learning_rate` must be positive. Received:", rates],
            ),
        ]
        with tf.control_dependencies(checks):
            row_lengths, rates = tf.identity(row_lengths), tf.identity(rates)
        return ragged.initial(
            row_lengths, rates, self._arrays(), self.config, total_steps
        )

    def update(self, gradients, values, row_lengths, learning_rate, **state):
        """One step of all tensors, see `ragged.update`; integers: int64."""
        with tf.control_dependencies(
            self._size_checks(gradients, values, row_lengths, state)
        ):
            row_lengths, values = tf.identity(row_lengths), tf.identity(values)
            gradients = tf.identity(gradients)
        return ragged.update(
            gradients,
            values,
            row_lengths,
            learning_rate,
            state,
            self._arrays(),
            self.config,
        )

    def signatures(self) -> dict:
        """The signatures as concrete functions, which name their tensors."""

        def spec(name, shape, dtype=tf.float32):
            return tf.TensorSpec(shape, dtype, name=name)

        def concrete(function, *specs):
            traced = tf.function(function, autograph=False)
            return traced.get_concrete_function(**{spec.name: spec for spec in specs})

        state = ragged.flat_shapes(self.config, None, None)
        row_lengths = spec("row_lengths", [None], tf.int64)
        start = [row_lengths, spec("initial_learning_rate", None)]
        # One function for both starts, which is written once.
        state_of = tf.function(self.init, autograph=False)

        def init(row_lengths, initial_learning_rate):
            unknown = tf.constant(0, tf.int64)
            return state_of(row_lengths, initial_learning_rate, unknown)

        def init_with_total_steps(row_lengths, initial_learning_rate, total_steps):
            is_positive = tf.debugging.Assert(
                total_steps > 0,
                ["`total_steps` must be positive. Received:", total_steps],
            )
            with tf.control_dependencies([is_positive]):
                total_steps = tf.identity(total_steps)
            return state_of(row_lengths, initial_learning_rate, total_steps)

        found = {
            "init": concrete(init, *start),
            "update": concrete(
                self.update,
                spec("gradients", [None]),
                spec("values", [None]),
                row_lengths,
                spec("learning_rate", []),
                *(spec(name, shape) for name, shape in state.items()),
            ),
        }
        if self.config.nominal:
            total_steps = spec("total_steps", [], tf.int64)
            found["init_with_total_steps"] = concrete(
                init_with_total_steps, *start, total_steps
            )
        return found

    def _arrays(self):
        """The meta-parameters by name."""
        sizes = [math.prod(spec.shape) for spec in self._specifications]
        parts = tf.split(tf.convert_to_tensor(self.meta_parameters), sizes)
        return {
            spec.name: tf.reshape(part, spec.shape)
            for spec, part in zip(self._specifications, parts, strict=True)
        }

    def _size_checks(self, gradients, values, row_lengths, state):
        """Assertions; XLA leaves them out."""
        lengths = [tf.shape(array, tf.int64)[0] for array in (gradients, values)]
        elements = tf.reduce_sum(row_lengths)
        adds_up = tf.reduce_all(tf.equal(lengths, elements))
        checks = [
            tf.debugging.Assert(
                adds_up & tf.reduce_all(row_lengths >= 0),
                [
                    "`row_lengths` must be 0 or more and add up to the length of "
                    "`gradients` and of `values`. Received: row_lengths, their sum, "
                    "and the two lengths",
                    row_lengths,
                    elements,
                    *lengths,
                ],
            )
        ]
        wanted = ragged.flat_shapes(
            self.config, elements, tf.size(row_lengths, tf.int64)
        )
        with tf.control_dependencies(checks):
            names = ", ".join(wanted)
            found = tf.stack([tf.shape(state[name], tf.int64)[-1] for name in wanted])
            wanted = tf.stack(
                [tf.cast(shape[-1], tf.int64) for shape in wanted.values()]
            )
            checks.append(
                tf.debugging.Assert(
                    tf.reduce_all(tf.equal(found, wanted)),
                    [
                        "The state must be of the tensors that `row_lengths` names. "
                        f"Received, of {names}, the last dimensions",
                        found,
                        "instead of",
                        wanted,
                    ],
                    summarize=len(state),
                )
            )
        return checks
