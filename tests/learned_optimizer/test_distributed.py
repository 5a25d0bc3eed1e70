"""Under tf.distribute the optimizer does what it does on one device, as by hand.

Two replicas see one row each of the pair of rows that makes a gradient. Each test
runs in a process of its own with two logical CPUs, see `conftest.py`; the behaviours
go through it in groups, because starting one takes most of the time.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from tests.arrays import assert_equal
from tests.conftest import two_replicas
from tests.learned_optimizer import by_hand
from tests.learned_optimizer.by_hand import (
    Problem,
    assert_same,
    assert_same_slots,
    assert_same_state,
    make_optimizer,
    numbers,
)
from tests.learned_optimizer.ways import BEHAVIOURS, Outcome, build_on_others, check

pytestmark = pytest.mark.distributed


def local_copies(strategy, variable):
    native = variable.value if isinstance(variable, keras.Variable) else variable
    return [copy.numpy() for copy in strategy.experimental_local_results(native)]


def assert_replicas_are_identical(strategy, *owners):
    copies = [local_copies(strategy, x) for owner in owners for x in owner]
    for one, other in copies:
        assert_equal(one, other)
    assert len(copies) > 40


def run_by_fit(behaviour, strategy, **options):
    problem = behaviour.problem()
    with strategy.scope():
        model = by_hand.make_model(problem, constrained=behaviour.constrained)
        optimizer = behaviour.optimizer()
        by_hand.fit(model, optimizer, problem, **options)
    assert_replicas_are_identical(strategy, model.variables, optimizer._variables)
    return Outcome(optimizer, model.trainable_variables, finalized=True)


def run_by_custom_loop(behaviour, strategy):
    problem = behaviour.problem()
    with strategy.scope():
        model = by_hand.make_model(problem, constrained=behaviour.constrained)
        optimizer = behaviour.optimizer()
        build_on_others(optimizer, model.trainable_variables)

    def replica_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x)) / strategy.num_replicas_in_sync
            loss = optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def step(x):
        strategy.run(replica_step, args=(x,))

    data = tf.data.Dataset.from_tensor_slices(problem.inputs).batch(2)
    for x in strategy.experimental_distribute_dataset(data):
        step(x)
    assert_replicas_are_identical(strategy, model.variables, optimizer._variables)
    return Outcome(optimizer, model.trainable_variables, finalized=False)


# A child process each: the quick one has one behaviour of each kind.
QUICK = ("averages", "accumulation", "not_finite_accumulated")
SLOW = (
    *("clipnorm", "clipvalue", "global_clipnorm", "not_finite", "unused"),
    *("constraint", "schedule", "loss_scale_factor", "everything", "attention"),
    *("overwriting_averages", "accumulation_and_averages", "attention_everything"),
)


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_two_replicas_do_what_is_done_by_hand(names):
    strategy = two_replicas()
    for name in names:
        check(BEHAVIOURS[name], run_by_fit(BEHAVIOURS[name], strategy))
    name = names[-1]
    check(BEHAVIOURS[name], run_by_custom_loop(BEHAVIOURS[name], strategy))
    if names is SLOW:
        outcome = run_by_fit(BEHAVIOURS[name], strategy, steps_per_execution=2)
        check(BEHAVIOURS[name], outcome)


@pytest.mark.slow
def test_loss_scale_optimizer_on_two_replicas():
    problem = Problem.make()
    strategy = two_replicas()
    with strategy.scope():
        model = by_hand.make_model(problem)
        inner = make_optimizer(global_clipnorm=1.0)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
        by_hand.fit(model, optimizer, problem)
    assert_replicas_are_identical(strategy, model.variables, inner._variables)
    expected = problem.run_by_hand(global_clipnorm=1.0)
    assert_same_state(inner, model.trainable_variables, expected)
    assert_same(numbers(model.trainable_variables), expected.values)


@pytest.mark.slow
def test_a_state_goes_from_two_replicas_to_one_and_back(tmp_path):
    behaviour = BEHAVIOURS["attention_everything"]
    problem = behaviour.problem(steps=8)
    parts = [Problem(problem.values, part) for part in np.split(problem.inputs, 4)]

    def go_on(part, scope):
        with scope():
            model = keras.models.load_model(tmp_path / "model.keras")
            by_hand.go_on(model, part)
            model.save(tmp_path / "model.keras")
        return model

    def start(scope):
        with scope():
            model = by_hand.make_model(parts[0], constrained=True)
            by_hand.fit(model, behaviour.optimizer(), parts[0])
            model.save(tmp_path / "model.keras")

    results = []
    strategy = two_replicas()
    one = tf.distribute.get_strategy().scope
    for scopes in ([strategy.scope, one, strategy.scope, one], [one] * 4):
        start(scopes[0])
        for part, scope in zip(parts[1:], scopes[1:], strict=True):
            model = go_on(part, scope)
        results.append((numbers(model.trainable_variables), model))
    assert_same(results[0][0], results[1][0])
    slots = [
        [model.optimizer.slots(variable) for variable in model.trainable_variables]
        for _, model in results
    ]
    assert_same_slots(*slots)


@pytest.mark.slow
def test_an_optimizer_of_another_strategy_than_its_variables_is_refused():
    strategy = two_replicas()
    outside = HierarchicalRNN()
    with strategy.scope():
        inside = HierarchicalRNN()
        mirrored = keras.Variable(np.ones(3, np.float32))
    for scope in (strategy.scope(), contextlib.nullcontext()):
        with scope, pytest.raises(ValueError, match="inside the scope"):
            outside.build([mirrored])
    assert not outside.built
    single = keras.Variable(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="inside the scope"):
        inside.build([single])
    outside.build([single])
    with strategy.scope():
        inside.build([mirrored])


@pytest.mark.slow
def test_sparse_absent_and_undecayed_on_two_replicas():
    strategy = two_replicas()
    for accumulation_steps in (None, 2):
        check_sparse_absent_and_undecayed(strategy, accumulation_steps)


def check_sparse_absent_and_undecayed(strategy, accumulation_steps):
    generator = np.random.default_rng(0)
    shapes = (6, 3), (3,), (2,)
    values = [np.float32(generator.normal(size=shape)) for shape in shapes]
    # Of each step and replica: rows of the table, some twice, and their gradients.
    rows = np.array([[[0, 2], [2, 5]], [[1, 1], [3, 1]], [[4, 0], [4, 4]]] * 2)
    pieces = generator.normal(size=(*rows.shape, 3)).astype(np.float32)

    def make():
        variables = [keras.Variable(value) for value in values]
        optimizer = make_optimizer(
            weight_decay=0.3,
            global_clipnorm=1.0,
            gradient_accumulation_steps=accumulation_steps,
        )
        optimizer.exclude_from_weight_decay([variables[1]])
        optimizer.build(variables)
        return optimizer, variables

    with strategy.scope():
        optimizer, variables = make()

    def replica_step(rows, pieces):
        sparse = tf.IndexedSlices(pieces, rows, dense_shape=tf.constant([6, 3]))
        # The last has no gradient.
        optimizer.apply([sparse, tf.reduce_sum(pieces, 0), None], variables)

    @tf.function
    def step(rows, pieces):
        strategy.run(replica_step, args=(rows, pieces))

    def of_replicas(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group])
        )

    alone, its = make()
    for step_rows, step_pieces in zip(rows, pieces, strict=True):
        step(of_replicas(step_rows), of_replicas(step_pieces))
        dense = np.zeros((6, 3), np.float32)
        np.add.at(dense, step_rows.reshape(-1), step_pieces.reshape(-1, 3))
        whole = [tf.constant(dense), tf.constant(step_pieces.sum((0, 1))), None]
        alone.apply(whole, its)
    assert_replicas_are_identical(strategy, variables, optimizer._variables)
    assert_same(numbers(variables), numbers(its))
    for one, two in zip(variables, its, strict=True):
        assert_same_slots(optimizer.slots(one), alone.slots(two))
    assert not np.array_equal(numbers(variables)[0], values[0])
    np.testing.assert_array_equal(numbers(variables)[2], values[2])
