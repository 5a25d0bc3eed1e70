"""How a step runs under TensorFlow: compiled, and the same on every replica.

The order that works under every strategy: gradients become dense, are summed over
the replicas, and only then is anything clipped, accumulated or assigned, in the
cross-replica context, each replica's copy by itself. So all copies stay the same,
and the result is that of one device.

XLA compiles the three stages of the update rule; they read, update and assign the
state's variables in place, and the passes over shards, which share no variable, run
side by side. Keras leaves models on a CPU uncompiled,
so this is done here whatever `jit_compile` a model has.
"""

import functools

import tensorflow as tf

from learned_optimizer.keras_step import model_step


class TensorFlowRunner:
    """Runs the steps of one `HierarchicalRNN`.

    Attributes:
        strategy: The strategy in whose scope the optimizer was made.
    """

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self.strategy = tf.distribute.get_strategy()
        self._stages = None
        self._updates = {}
        if isinstance(self.strategy, tf.distribute.experimental.CentralStorageStrategy):
            raise ValueError(
                "HierarchicalRNN runs under every strategy but "
                "CentralStorageStrategy, which gives wrong results for every Keras "
                "optimizer. Received: CentralStorageStrategy"
            )

    def check_variables(self, variables):
        """Refuses variables of another strategy than the optimizer's own."""
        for variable in variables:
            native = _native(variable)
            strategy = getattr(native, "distribute_strategy", None)
            # A variable that was made in no scope knows of no strategy.
            single = strategy is None and self.strategy.num_replicas_in_sync == 1
            if strategy is not self.strategy and not single:
                raise ValueError(
                    "HierarchicalRNN must be created inside the scope of the "
                    "strategy that its variables belong to: `with strategy.scope():`. "
                    f"Received: an optimizer of {type(self.strategy).__name__} and the "
                    f"variable {variable.name!r} of {type(strategy).__name__}"
                )

    def read_now(self, variable):
        """A variable's value, an array, outside the function that is being traced.

        Variables that depend on a tensor of that function could not be lifted out
        of it, as XLA needs them to be.
        """
        with tf.init_scope():
            return tf.convert_to_tensor(_native(variable)).numpy()

    def run(self, gradients, trainable_variables, present):
        """A step, called in replica context (or where there is one replica)."""
        optimizer = self._optimizer
        pairs = [
            (tf.convert_to_tensor(gradient), _native(variable))
            for gradient, variable in zip(gradients, trainable_variables, strict=True)
        ]
        gradients = [pair[0] for pair in optimizer._all_reduce_sum_gradients(pairs)]
        variables = tf.nest.map_structure(
            _native, optimizer.step_variables(optimizer._trainable_variables)
        )
        learning_rate = tf.cast(optimizer._get_current_learning_rate(), tf.float32)
        tf.__internal__.distribute.interim.maybe_merge_call(
            functools.partial(self._run_everywhere, present),
            self.strategy,
            variables,
            gradients,
            learning_rate,
            tf.convert_to_tensor(_native(optimizer._iterations)),
        )

    def _run_everywhere(
        self, present, strategy, variables, gradients, learning_rate, calls
    ):
        strategy.extended.update(
            variables.skipped_steps,
            functools.partial(self._run_here, present),
            args=(tuple(variables), gradients, learning_rate, calls),
            group=False,
        )

    def _run_here(self, present, _, variables, gradients, learning_rate, calls):
        """The step on one replica's own copies."""
        spec = self._optimizer.step_spec(present)
        variables = model_step.Variables(*variables)
        active = self._compiled_update(spec)(variables, gradients, learning_rate, calls)
        # A user's constraint need not compile.
        model_step.constrain(spec, variables, active)
        model_step.average(spec, variables, calls)

    def _compiled_update(self, spec):
        """`model_step.update` for a spec, traced.

        XLA compiles the stages once for all: which tensors have gradients, the decay
        and limits of gradients are data to it.
        """
        if self._stages is None:
            compiled = functools.partial(
                tf.function, jit_compile=self._compiles(), autograph=False
            )
            self._stages = model_step.stages_in_place(
                spec.layout, spec.config, compiled
            )
        if spec.update_key not in self._updates:
            stages = self._stages

            def update(variables, gradients, learning_rate, calls):
                return model_step.update(
                    spec, variables, gradients, learning_rate, calls, stages
                )

            # A graph, so that shards run side by side in an eager loop too.
            self._updates[spec.update_key] = tf.function(update, autograph=False)
        return self._updates[spec.update_key]

    def _compiles(self) -> bool:
        # XLA cannot reach variables that live on a parameter server.
        return not isinstance(
            self.strategy, tf.distribute.experimental.ParameterServerStrategy
        )


def _native(variable):
    """The `tf.Variable` of a Keras variable, or what was given."""
    return variable.value if hasattr(variable, "_value") else variable
