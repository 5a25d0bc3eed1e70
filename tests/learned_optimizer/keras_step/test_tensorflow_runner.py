"""XLA compiles the stages of a step, but where it cannot reach the variables."""

import sys
import warnings
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step import model_step
from tests.learned_optimizer import by_hand


@pytest.fixture
def stages(monkeypatch):
    """The stages that runners made, an entry each time."""
    made = []
    make = model_step.stages_in_place

    def stages_in_place(*arguments):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(model_step, "stages_in_place", stages_in_place)
    return made


@pytest.mark.parametrize("on_parameter_servers", [False, True])
def test_the_three_stages_of_a_step_are_compiled(on_parameter_servers, stages):
    variables = [keras.Variable(np.ones(shape, np.float32)) for shape in ((4, 3), (5,))]
    optimizer = HierarchicalRNN()
    optimizer.build(variables)
    (runner,) = optimizer._runner
    strategy = runner.strategy
    if on_parameter_servers:
        # A real one needs a cluster; only its type is looked at.
        strategy = mock.Mock(spec=tf.distribute.experimental.ParameterServerStrategy)
    with mock.patch.object(runner, "strategy", strategy):
        update = runner._compiled_update(optimizer.step_spec((0, 1)))
    native = tf.nest.map_structure(
        lambda x: x.value, optimizer.step_variables(variables)
    )
    gradients = [tf.ones(variable.shape) for variable in variables]
    update(native, gradients, tf.constant(1.0), tf.constant(0, tf.int64))
    assert np.all(variables[1].numpy() < 1)
    ((prepare, update_parameters, update_tensors),) = stages
    for stage in (prepare, update_parameters, update_tensors):
        (concrete,) = stage._list_all_concrete_functions()
        attributes = concrete.function_def.attr
        compiled = "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b
        assert compiled == (not on_parameter_servers)


def test_other_tensors_without_gradients_compile_nothing_anew(stages):
    problem = by_hand.Problem.make(steps=3)
    variables = [keras.Variable(value) for value in problem.values]
    optimizer = HierarchicalRNN(initial_learning_rate=by_hand.INITIAL_LEARNING_RATE)
    expected = by_hand.OptimizerByHand(problem.values)
    for step, gradients in enumerate(problem.gradients()):
        given = [None if i == step else x for i, x in enumerate(gradients)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")
            optimizer.apply(
                [None if x is None else tf.constant(x) for x in given], variables
            )
        expected.call(given)
    by_hand.assert_follows(optimizer, variables, expected)
    ((prepare, update_parameters, update_tensors),) = stages
    assert len(prepare._list_all_concrete_functions()) == 1
    assert len(update_tensors._list_all_concrete_functions()) == 1


@pytest.mark.parametrize("kind", [keras.optimizers.Adam, HierarchicalRNN])
def test_autograph_stays_out_of_a_step_as_it_does_in_keras(kind):
    called_from = set()

    def constraint(value):
        # A converted function lives in a generated file.
        called_from.add(sys._getframe().f_code.co_filename)
        return value

    variable = keras.Variable(np.ones(3, np.float32))
    variable.constraint = constraint
    optimizer = kind()

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [variable])

    step(tf.ones(3))
    assert called_from == {__file__}
