"""How a step runs under TensorFlow: compiled, and the same on every replica.

The order that works under every strategy: gradients become dense, are summed over
the replicas, and only then is anything clipped, accumulated or assigned, in the
cross-replica context, each replica's copy by itself. So all copies stay the same,
and the result is that of one device.

XLA compiles the three stages of the update rule, of few tensors as one program; they
read, update and assign the state's variables in place, and the passes over shards,
which share no variable, run side by side. Keras leaves models on a CPU uncompiled, so
this is done here whatever `jit_compile` a model has, but not for small models: theirs
is no faster compiled.

Whatever a user can change between two steps is data to the functions that are traced
here. They belong to no optimizer: models of equal shapes share them, and only the last
ones are kept, since TensorFlow never frees what XLA compiled.
"""

import contextlib
import dataclasses
import functools

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.ops.resource_variable_ops import default_variable_creator_v2

from learned_optimizer.keras_step import model_step

# Compiling takes 2 to 3 s. From here on it pays within 300 steps; at 10,000 parameters
# it saves some CPU time per step, at 5,000 none (docs/measurements.md).
SMALLEST_COMPILED_SIZE = 20_000
# Each argument of an XLA computation costs some 13 us, each start some 200: a step of
# few tensors is one computation, not three with the meta-parameters passed between.
MOST_TENSORS_IN_ONE_PROGRAM = 32


class TensorFlowRunner:
    """Runs the steps of one `HierarchicalRNN`, made in the scope of its `strategy`."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self.strategy = tf.distribute.get_strategy()
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

    @contextlib.contextmanager
    def eagerly(self):
        """A context outside the function that is being traced, if one is.

        A `tf.function` in which variables are made is traced twice, the whole model
        with it. It learns of them from a creator that this context does without.
        """
        with contextlib.ExitStack() as stack:
            if tf.inside_function() and not tf.distribute.has_strategy():
                stack.enter_context(tf.variable_creator_scope(_make_variable))
            stack.enter_context(tf.init_scope())
            yield

    def read_now(self, variable):
        """A variable's value, an array, outside the function that is being traced.

        Variables that depend on a tensor of that function could not be lifted out
        of it, as XLA needs them to be.
        """
        with self.eagerly():
            return tf.convert_to_tensor(_native(variable)).numpy()

    def run(self, gradients, trainable_variables, present):
        """A step, called in replica context (or where there is one replica)."""
        optimizer = self._optimizer
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if self.strategy.num_replicas_in_sync > 1:
            # TensorFlow keeps all that surrounds such a sum for ever, variables too.
            pairs = zip(gradients, map(_native, trainable_variables), strict=True)
            gradients = [x for x, _ in optimizer._all_reduce_sum_gradients(pairs)]
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
        with self._where_the_state_lies(variables):
            active = self._update(spec, variables, gradients, learning_rate, calls)
        # A user's constraint need not compile.
        model_step.constrain(spec, variables, active)
        model_step.average(spec, variables, calls)

    def _update(self, spec, variables, gradients, learning_rate, calls):
        """`model_step.update`, traced once for all that have this structure."""
        if not tf.inside_function():
            # In an eager loop other tensors may lack a gradient each time. A function
            # around this is traced once, and there what has none costs nothing.
            spec, gradients = _with_stand_ins(spec, variables, gradients)
        numbers = tf.nest.map_structure(_number, spec.numbers)
        if spec.accumulation_steps is not None:
            numbers["accumulation_steps"] = tf.cast(
                spec.accumulation_steps, calls.dtype
            )
        compiles = self.compiles(spec.layout)
        update = _update_function(
            spec.layout,
            spec.config,
            spec.present,
            compiles,
            compiles and _fits_one_program(spec, variables),
            bool(context.context().op_callbacks),
        )
        resources = tf.nest.map_structure(
            lambda x: _Resource(x.handle, x.dtype, x.shape), tuple(variables)
        )
        return update(resources, numbers, gradients, learning_rate, calls)

    def _where_the_state_lies(self, variables):
        """The device of the state, which may not be the one that `fit` runs on."""
        if tf.distribute.has_strategy():
            return contextlib.nullcontext()
        return tf.device(variables.skipped_steps.device)

    def compiles(self, layout) -> bool:
        """Whether XLA compiles the stages of a step."""
        # XLA can reach neither variables that live on a parameter server nor what
        # `tf.debugging.enable_check_numerics` adds to each operation.
        if isinstance(
            self.strategy, tf.distribute.experimental.ParameterServerStrategy
        ):
            return False
        if context.context().op_callbacks:
            return False
        wanted = self._optimizer.jit_compile
        if wanted == "auto":
            return layout.tensor_elements.sum() >= SMALLEST_COMPILED_SIZE
        return wanted


def _make_variable(_, **options):
    """A variable of which no other creator learns."""
    return default_variable_creator_v2(**options)


def _fits_one_program(spec, variables) -> bool:
    """Whether compiled stages are compiled as one.

    Not where shards run side by side, nor where devices hold different variables.
    """
    if spec.layout.shards > 1 or len(spec.present) > MOST_TENSORS_IN_ONE_PROGRAM:
        return False
    return len({x.device for x in tf.nest.flatten(tuple(variables))}) == 1


@functools.lru_cache(maxsize=32)
def _update_function(layout, config, present, compiles, in_one, has_callbacks):
    """`model_step.update` as a function of resources and tensors alone."""
    del has_callbacks  # What debugging adds is part of what was traced.
    stages = _stages(layout, config, compiles and not in_one)

    @functools.partial(_on_handles, jit_compile=in_one)
    def update(variables, numbers, gradients, learning_rate, calls):
        spec = model_step.StepSpec(layout, config, present, **numbers)
        variables = model_step.Variables(*variables)
        return model_step.update(
            spec, variables, gradients, learning_rate, calls, stages
        )

    return update


@functools.lru_cache(maxsize=32)
def _stages(layout, config, compiles):
    """The stages of the rule, compiled by XLA or parts of the graph around them."""
    if not compiles:
        return model_step.stages_in_place(layout, config)
    compiled = functools.partial(_on_handles, jit_compile=True)
    return model_step.stages_in_place(layout, config, compiled)


def _with_stand_ins(spec, variables, gradients):
    """Gradients of all tensors, zeros where there is none, and who has one as data."""
    is_present = np.zeros(spec.layout.num_tensors, np.float32)
    is_present[list(spec.present)] = 1
    given = dict(zip(spec.present, gradients, strict=True))
    gradients = [
        given[position] if position in given else tf.zeros(variable.shape)
        for position, variable in enumerate(variables.values)
    ]
    present = tuple(range(len(gradients)))
    spec = dataclasses.replace(spec, present=present, is_present=is_present)
    return spec, gradients


def _number(value):
    return None if value is None else tf.convert_to_tensor(value, tf.float32)


class _Resource:
    """A variable of which no more is known than its handle, type and shape.

    A `tf.function` that takes variables keeps weak references to the first ones, and
    fails inside another function when those are gone. Handles are tensors to it.
    """

    def __init__(self, handle, dtype, shape):
        self.handle = handle
        self.dtype, self.shape = tf.as_dtype(dtype), tf.TensorShape(shape)

    @property
    def kind(self) -> tuple:
        """Type and shape, hashable."""
        return self.dtype.name, tuple(self.shape)

    def assign(self, value):
        """As of a variable, and so `assign_sub`."""
        value = tf.convert_to_tensor(value, self.dtype)
        tf.raw_ops.AssignVariableOp(resource=self.handle, value=value)

    def assign_sub(self, value):
        """See `assign`."""
        value = tf.convert_to_tensor(value, self.dtype)
        tf.raw_ops.AssignSubVariableOp(resource=self.handle, value=value)

    def __tf_tensor__(self, dtype=None, name=None):
        value = tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        value.set_shape(self.shape)
        return value


def _on_handles(function, **options):
    """A `tf.function` of structures of `_Resource`s and tensors."""

    @tf.function(autograph=False, **options)
    def traced(kinds, arguments):
        kinds = iter(kinds)

        def resource(leaf):
            is_handle = getattr(leaf, "dtype", None) == tf.resource
            return _Resource(leaf, *next(kinds)) if is_handle else leaf

        return function(*tf.nest.map_structure(resource, arguments))

    def call(*arguments):
        leaves = tf.nest.flatten(arguments)
        kinds = tuple(x.kind for x in leaves if isinstance(x, _Resource))
        handles = tf.nest.map_structure(
            lambda x: x.handle if isinstance(x, _Resource) else x, arguments
        )
        return traced(kinds, handles)

    call.traced = traced
    return call


def _native(variable):
    """The `tf.Variable` of a Keras variable, or what was given."""
    return variable.value if hasattr(variable, "_value") else variable
