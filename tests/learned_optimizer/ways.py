"""A table: behaviours of the optimizer, and ways to run it.

`BEHAVIOURS` says which arguments the optimizer gets and what is to be computed by hand;
`WAYS` are functions that take a problem through all its steps. Every behaviour must
come out the same in every way, and as by hand.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step import model_layout
from tests.learned_optimizer import by_hand


@keras.saving.register_keras_serializable(package="tests")
class HalvedEverySecondCall(keras.optimizers.schedules.LearningRateSchedule):
    """1, 1, 0.5, 0.5, 0.25, ..."""

    def __call__(self, step):
        return 0.5 ** keras.ops.floor(keras.ops.cast(step, "float32") / 2)

    def get_config(self):
        return {}


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One row of the table.

    Attributes:
        arguments: What `HierarchicalRNN` gets.
        by_hand: What `OptimizerByHand` gets where that differs.
        switches: Switches of the architecture; None: the shipped weights.
        broken: Whether some of the gradients are not finite.
        constrained: Whether the parameters are kept from being negative.
        unused: Elements, of all tensors behind one another, whose gradient is always
            0; they must not move, bit for bit.
    """

    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    by_hand: dict[str, Any] = dataclasses.field(default_factory=dict)
    switches: dict[str, Any] | None = None
    broken: bool = False
    constrained: bool = False
    unused: tuple[int, ...] = ()

    @property
    def weights(self):
        if self.switches is None:
            return "default"
        return by_hand.perturbed_weights(**self.switches)

    def problem(self, steps=6):
        problem = by_hand.Problem.make(steps)
        problem.inputs[:, self.unused] = 0
        return problem.broken() if self.broken else problem

    def optimizer(self, jit_compile="auto"):
        return HierarchicalRNN(
            weights=self.weights,
            initial_learning_rate=by_hand.INITIAL_LEARNING_RATE,
            jit_compile=jit_compile,
            **self.arguments,
        )

    def expected(self, steps=6):
        arguments = {**self.arguments, **self.by_hand}
        arguments.pop("loss_scale_factor", None)
        if self.switches is not None:
            arguments["weights"] = self.weights
        if self.constrained:
            arguments["constraints"] = [lambda x: x * (x >= 0)] * len(by_hand.SHAPES)
        return self.problem(steps).run_by_hand(**arguments)


AVERAGED = dict(use_ema=True, ema_momentum=0.6)
EVERYTHING = dict(
    **AVERAGED,
    ema_overwrite_frequency=2,
    gradient_accumulation_steps=2,
    global_clipnorm=1.0,
    weight_decay=0.3,
    learning_rate=0.5,
)

BEHAVIOURS = {
    "plain": Behaviour(),
    "learning_rate": Behaviour(dict(learning_rate=0.1)),
    "schedule": Behaviour(
        dict(learning_rate=HalvedEverySecondCall()),
        dict(learning_rate=lambda calls: 0.5 ** (calls // 2)),
    ),
    "clipnorm": Behaviour(dict(clipnorm=0.5)),
    "clipvalue": Behaviour(dict(clipvalue=0.3)),
    "global_clipnorm": Behaviour(dict(global_clipnorm=1.0)),
    "weight_decay": Behaviour(dict(weight_decay=0.3)),
    "averages": Behaviour(AVERAGED),
    "overwriting_averages": Behaviour({**AVERAGED, "ema_overwrite_frequency": 2}),
    "accumulation": Behaviour(dict(gradient_accumulation_steps=3)),
    "accumulation_and_averages": Behaviour(
        {**AVERAGED, "gradient_accumulation_steps": 2, "ema_overwrite_frequency": 2}
    ),
    "loss_scale_factor": Behaviour(dict(loss_scale_factor=1024.0)),
    "constraint": Behaviour(dict(weight_decay=0.3), constrained=True),
    "not_finite": Behaviour(dict(global_clipnorm=1.0), broken=True),
    "not_finite_accumulated": Behaviour(EVERYTHING, broken=True),
    "everything": Behaviour(EVERYTHING, constrained=True),
    # Some elements of two tensors, and the whole of another.
    "unused": Behaviour(unused=(0, 5, 13, 17)),
    "attention": Behaviour(switches=dict(attention=True)),
    "attention_and_decay": Behaviour(
        dict(learning_rate=0.5, weight_decay=0.3), switches=dict(attention=True)
    ),
    "attention_everything": Behaviour(
        EVERYTHING, switches=dict(attention=True), broken=True, constrained=True
    ),
    "two_levels": Behaviour(
        EVERYTHING,
        switches=dict(level_sizes=(5, 7), gradient_timescales=2),
        broken=True,
    ),
    "one_level": Behaviour(
        switches=dict(level_sizes=(6,), extreme_indicator=True), broken=True
    ),
    "no_output_scale": Behaviour(
        dict(weight_decay=0.01, learning_rate=0.01),
        switches=dict(dynamic_output_scale=False, relative_learning_rate=False),
        broken=True,
    ),
    "total_steps": Behaviour(dict(total_steps=4)),
    "total_steps_and_horizon_input": Behaviour(
        dict(total_steps=8),
        switches=dict(
            nominal=dict(ratio=0.1, largest=1.5, shallow_tensors=2.0),
            horizon_input=True,
        ),
    ),
    "horizon_input": Behaviour(switches=dict(nominal={}, horizon_input=True)),
    "last_tensor": Behaviour(
        switches=dict(global_rnn_input="last_tensor"), broken=True
    ),
}


@dataclasses.dataclass
class Outcome:
    """What a way leaves behind; `finalized`: with the final values in the model."""

    optimizer: Any
    variables: list[Any]
    finalized: bool


def check(behaviour, outcome):
    """The outcome of a way is that of the computation by hand."""
    expected = behaviour.expected()
    by_hand.assert_same_state(outcome.optimizer, outcome.variables, expected)
    wanted = expected.final_values() if outcome.finalized else expected.attended
    values = by_hand.numbers(outcome.variables)
    by_hand.assert_same(values, wanted, where="values")
    start, end = (
        np.concatenate([np.ravel(value) for value in arrays])
        for arrays in (behaviour.problem().values, values)
    )
    assert set(np.flatnonzero(start == end)) >= set(behaviour.unused)


def variables_of(behaviour):
    constraint = keras.constraints.NonNeg() if behaviour.constrained else None
    found = []
    for value in behaviour.problem().values:
        variable = keras.Variable(value)
        variable.constraint = constraint
        found.append(variable)
    return found


def build_on_others(optimizer, variables):
    """Builds the optimizer on other values, as if pretrained ones were loaded later."""
    values = by_hand.numbers(variables)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(5 * value + 1)
    optimizer.build(variables)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def apply(behaviour, build=lambda optimizer, variables: None):
    """`optimizer.apply`, eagerly, on variables without a model."""
    optimizer = behaviour.optimizer()
    variables = variables_of(behaviour)
    build(optimizer, variables)
    scale = np.float32(optimizer.loss_scale_factor or 1)
    for gradients in behaviour.problem().gradients():
        optimizer.apply(
            [keras.ops.convert_to_tensor(scale * gradient) for gradient in gradients],
            variables,
        )
    return Outcome(optimizer, variables, finalized=False)


def apply_in_chunks(behaviour):
    """The same with blocks so small that there are two shards of two chunks each.

    The parameters get their values after the optimizer was built.
    """
    with small_blocks():
        outcome = apply(behaviour, build_on_others)
    (layout,) = outcome.optimizer._layout
    assert (layout.block_size, layout.shards) == (4, 2)
    if layout.blocks_per_chunk is not None:
        assert layout.num_chunks == 2
    return outcome


@contextlib.contextmanager
def small_blocks(**sizes):
    """Optimizers that are built inside arrange their state in small pieces."""
    sizes = {**dict(BLOCK_SIZE=4, CHUNK_SIZE=8, SMALLEST_SHARD=12), **sizes}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(model_layout, name, value)
        yield


def raw_variables(behaviour):
    """`apply_gradients` on plain `tf.Variable`s, inside a `tf.function`."""
    import tensorflow as tf

    constraint = keras.constraints.NonNeg() if behaviour.constrained else None
    variables = [
        tf.Variable(value, constraint=constraint)
        for value in behaviour.problem().values
    ]
    optimizer = behaviour.optimizer()
    scale = np.float32(optimizer.loss_scale_factor or 1)

    @tf.function
    def step(gradients):
        optimizer.apply_gradients(
            (scale * gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
        )

    for gradients in behaviour.problem().gradients():
        step([tf.constant(gradient) for gradient in gradients])
    return Outcome(optimizer, variables, finalized=False)


def custom_loop(behaviour, compiled=True, jit_compile="auto"):
    """A GradientTape loop over a model."""
    import tensorflow as tf

    problem = behaviour.problem()
    model = by_hand.make_model(problem, constrained=behaviour.constrained)
    optimizer = behaviour.optimizer(jit_compile)

    def step(x):
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(tf.reduce_mean(model(x)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    if compiled:
        step = tf.function(step)
    for x in problem.inputs.reshape(-1, 2, problem.inputs.shape[1]):
        step(tf.constant(x))
    return Outcome(optimizer, model.trainable_variables, finalized=False)


def eager_loop(behaviour):
    """The same without `tf.function`."""
    return custom_loop(behaviour, compiled=False)


def compiled_step(behaviour):
    """The same with a step that XLA compiles."""
    return custom_loop(behaviour, jit_compile=True)


def fitting(**options) -> Callable:
    """`Model.fit` with options of `compile`."""

    def way(behaviour):
        problem = behaviour.problem()
        model = by_hand.make_model(problem, constrained=behaviour.constrained)
        optimizer = behaviour.optimizer()
        by_hand.fit(model, optimizer, problem, **options)
        return Outcome(optimizer, model.trainable_variables, finalized=True)

    return way


WAYS = {
    "apply": apply,
    "apply_in_chunks": apply_in_chunks,
    "raw_variables": raw_variables,
    "custom_loop": custom_loop,
    "eager_loop": eager_loop,
    "compiled_step": compiled_step,
    "fit": fitting(),
    "fit_jit_compile": fitting(jit_compile=True),
    "fit_run_eagerly": fitting(run_eagerly=True),
    "fit_steps_per_execution": fitting(steps_per_execution=3),
}
