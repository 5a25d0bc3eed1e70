"""What the Keras optimizer does beside the table of `test_ways.py`.

Each test looks at an effect and compares it with what was computed by hand.
"""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import (
    Config,
    HierarchicalRNN,
    SwapTrueValues,
    Weights,
    load_weights,
)
from tests.arrays import assert_close, assert_equal
from tests.conftest import output_of
from tests.learned_optimizer import by_hand, golden
from tests.learned_optimizer.by_hand import (
    Problem,
    apply_all,
    assert_follows,
    assert_same,
    assert_same_state,
    make_optimizer,
    make_variables,
    numbers,
    perturbed_weights,
)
from tests.learned_optimizer.states import state_of
from tests.learned_optimizer.ways import AVERAGED


def everything_of(optimizer, variables):
    """All that an optimizer knows, and the values of its variables."""
    return {**state_of(optimizer), "values": numbers(variables)}


# Steps.


def test_the_first_step_has_the_root_mean_square_that_the_initial_rate_says():
    # exp(c) times the initial rate, before the RNN acts on eta: c is -1 and the
    # readout of eta 0 in fresh weights.
    variables = [keras.Variable(np.zeros((30, 40), np.float32))]
    optimizer = HierarchicalRNN(weights=None, seed=1, initial_learning_rate=0.02)
    gradient = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    apply_all(optimizer, variables, [[gradient]])
    (step,) = numbers(variables)
    assert np.sqrt(np.mean(step**2)) == pytest.approx(np.exp(-1) * 0.02, rel=1e-5)


def test_variables_excluded_from_weight_decay_do_not_decay():
    problem = Problem.make()
    names = ["kernel", "bias", "gain", "other"]
    pairs = zip(problem.values, names, strict=True)
    variables = [keras.Variable(value, name=name) for value, name in pairs]
    optimizer = make_optimizer(weight_decay=0.3)
    optimizer.exclude_from_weight_decay(var_list=[variables[3]], var_names=["bias"])
    apply_all(optimizer, variables, problem.gradients())
    expected = problem.run_by_hand(weight_decay=0.3, excluded_from_weight_decay=(1, 3))
    assert_follows(optimizer, variables, expected)


# Learning rates that change.


def test_a_callable_learning_rate_scales_the_steps():
    rate = tf.Variable(0.25)
    problem = Problem.make(steps=3)
    variables = make_variables(problem)
    optimizer = make_optimizer(learning_rate=lambda: rate)
    apply_all(optimizer, variables, problem.gradients()[:1])
    rate.assign(2.0)
    apply_all(optimizer, variables, problem.gradients()[1:])
    expected = problem.run_by_hand(learning_rate=lambda calls: 2.0 if calls else 0.25)
    assert_follows(optimizer, variables, expected)


# Golden data through the Keras class.


@pytest.mark.parametrize(
    "name",
    [
        "a_pert",
        "a_clip",
        "b_pert_multi",
        "c_pert",
        "d_pert",
        "e_pert",
        "e_pert_papermean",
        "f_dynamic_output_scale_off",
        "f_num_gradient_scales_1",
    ],
)
def test_the_optimizer_follows_the_released_code(name):
    if name not in golden.case_names():
        pytest.skip(f"{golden.FOLDER} has no case {name}")
    case = golden.GoldenCase(name)
    weights = Weights(name, case.config, case.meta_parameters)
    optimizer = HierarchicalRNN(weights=weights)
    variables = [keras.Variable(value) for value in case.parameters]
    optimizer.build(variables)
    (layout,) = optimizer._layout
    start = case.initial_state(layout)
    if case.config.dynamic_output_scale:
        shards = zip(optimizer._log_learning_rate, layout.shard_blocks, strict=True)
        for shard, rows in shards:
            shard.assign(start.log_learning_rate[:, rows])
    # The released code starts from the learned vectors, and so do we.
    found = [optimizer.slots(variable)["hidden_state"] for variable in variables]
    assert_equal(found, [state["parameter"] for state in case.expected["states"][0]])
    near = dict(rtol=1e-5, atol=1e-5 if case.config.dynamic_output_scale else 5e-5)
    attended = case.expected["attend" if case.config.attention else "params"]
    for step in range(case.steps):
        apply_all(optimizer, variables, [[x[step] for x in case.gradients]])
        wanted = [values[step] for values in attended]
        assert_close(numbers(variables), wanted, **near, where=f"step {step + 1}")
    optimizer.finalize_variable_values(variables)
    final = [values[-1] for values in case.expected["params"]]
    assert_close(numbers(variables), final, **near)


@pytest.mark.slow
def test_it_does_with_all_passes_of_xla_too():
    # The other tests run with few of them (conftest.py).
    test = f"{__file__}::{test_the_optimizer_follows_the_released_code.__name__}"
    output = output_of("-m", "pytest", "-p", "no:cacheprovider", test, XLA_FLAGS="")
    assert "9 passed" in output


# Dtypes and precision.


@pytest.fixture
def representable():
    """A problem that half precision computes exactly, also with its loss scaled."""
    problem = Problem.make()
    inputs = np.random.default_rng(1).integers(-32, 33, problem.inputs.shape) / 64
    return Problem(problem.values, inputs.astype(np.float32))


@pytest.mark.parametrize(
    "dtype, tolerance", [("float16", 4e-3), ("bfloat16", 4e-2), ("float64", 2e-6)]
)
def test_variables_of_any_float_keep_their_dtype_and_the_state_is_float32(
    dtype, tolerance
):
    problem = Problem.make()
    variables = make_variables(problem, dtype)
    optimizer = make_optimizer(**AVERAGED)
    apply_all(optimizer, variables, problem.gradients())
    expected = problem.run_by_hand(**AVERAGED)
    averages = optimizer._model_variables_moving_average
    assert {x.dtype for x in [*variables, *averages]} == {dtype}
    for found, wanted in (variables, expected.values), (averages, expected.averages):
        found = [tf.cast(x, "float64").numpy() for x in found]
        assert_same(found, wanted, rtol=tolerance, atol=tolerance)
    for variable in variables:
        slots = optimizer.slots(variable)
        assert {array.dtype.name for array in slots.values()} == {"float32"}
    kept = {id(x) for x in averages}
    dtypes = {x.dtype for x in optimizer.variables if id(x) not in kept}
    assert dtypes == {"float32", "int32", "int64"}


OVERWRITTEN = AVERAGED | dict(ema_overwrite_frequency=2, gradient_accumulation_steps=2)


@pytest.mark.parametrize(
    "dtype, tolerance, arguments",
    [("float16", 4e-3, {}), ("bfloat16", 4e-2, OVERWRITTEN)],
    ids=["float16", "bfloat16 and averages"],
)
def test_true_values_of_half_precision_are_float32(
    dtype, tolerance, arguments, representable
):
    arguments = dict(arguments, weights=perturbed_weights(attention=True))
    values = [np.round(value * 16) / 16 for value in representable.values]
    problem = Problem(values, representable.inputs)
    variables = make_variables(problem, dtype)
    optimizer = make_optimizer(**arguments)
    apply_all(optimizer, variables, problem.gradients())
    expected = problem.run_by_hand(**arguments)
    # Where averages in half precision have overwritten them, they are rounded.
    near = dict(rtol=tolerance, atol=tolerance) if "use_ema" in arguments else {}
    for index, variable in enumerate(variables):
        assert variable.dtype == dtype
        slots = optimizer.slots(variable)
        assert {array.dtype.name for array in slots.values()} == {"float32"}
        assert_same([slots["true_value"]], [expected.values[index].reshape(-1)], **near)

    def assert_hold(arrays):
        assert_equal(numbers(variables), [tf.cast(x, dtype).numpy() for x in arrays])

    attended = numbers(variables)
    found = [np.float32(x) for x in attended]
    assert_close(found, expected.attended, tolerance, tolerance)
    true_values = numbers(optimizer._true_values)
    swap = SwapTrueValues()
    swap.set_model(types.SimpleNamespace(optimizer=optimizer))
    swap.on_test_begin()
    assert_hold(true_values)
    swap.on_test_end()
    assert_hold(attended)
    optimizer.finalize_variable_values(variables)
    averages = numbers(optimizer._model_variables_moving_average) if near else None
    assert_hold(averages or true_values)


def test_true_values_keep_double_precision():
    value = np.array([1 + 2**-40, -3.0])
    variable = keras.Variable(value, dtype="float64")
    optimizer = make_optimizer(weights=perturbed_weights(attention=True))
    optimizer.build([variable])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_loss_scale_factor_saves_small_gradients_of_half_precision(accumulation):
    # 2^-26 is no float16; scaled by 2^14 it is, and unscaled it must not vanish.
    results = []
    cases = (2.0**14, 2.0**-12, "float16"), (None, 2.0**-26, "float32")
    for factor, gradient, dtype in cases:
        variable = keras.Variable(np.zeros(3), dtype=dtype)
        optimizer = make_optimizer(
            loss_scale_factor=factor, gradient_accumulation_steps=accumulation
        )
        calls = accumulation or 1
        apply_all(optimizer, [variable], [[np.full(3, gradient)]] * calls)
        results.append(optimizer.slots(variable)["gradient_averages"])
    np.testing.assert_allclose(*results)
    assert np.all(results[0] > 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_takes_the_same_steps(policy, representable):
    keras.config.set_dtype_policy(policy)
    try:
        model = by_hand.make_model(representable)
        by_hand.fit(model, make_optimizer(clipnorm=0.3), representable)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = model.optimizer
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (policy == "mixed_float16")
    optimizer = optimizer.inner_optimizer if scales else optimizer
    expected = representable.run_by_hand(clipnorm=0.3)
    assert_follows(optimizer, model.trainable_variables, expected)


def test_loss_scale_optimizer_skips_a_step_that_is_not_finite(representable):
    inputs = representable.inputs.copy()
    inputs[4, 2] = np.inf  # step 2
    model = by_hand.make_model(representable)
    inner = make_optimizer(**AVERAGED)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
    by_hand.fit(model, optimizer, Problem(representable.values, inputs))
    kept = np.delete(inputs.reshape(6, 2, -1), 2, axis=0).reshape(10, -1)
    expected = Problem(representable.values, kept).run_by_hand(**AVERAGED)
    assert_same_state(inner, model.trainable_variables, expected)
    assert_same(numbers(model.trainable_variables), expected.final_values())
    assert float(optimizer.dynamic_scale) == 32.0
    assert int(inner.iterations) == 5


# Gradients that are sparse, absent or not finite.


@pytest.mark.parametrize(
    "arguments, wrap",
    [
        (dict(), lambda optimizer: optimizer),
        (dict(loss_scale_factor=8.0, global_clipnorm=0.1), lambda optimizer: optimizer),
        (dict(gradient_accumulation_steps=2), keras.optimizers.LossScaleOptimizer),
    ],
    ids=["plain", "scaled and clipped", "accumulated in LossScaleOptimizer"],
)
def test_sparse_gradients_are_their_dense_ones(arguments, wrap):
    words = np.array([[1, 3, 3], [0, 1, 1]])
    results = []
    for sparse in (True, False):
        table = tf.Variable(np.random.default_rng(0).standard_normal((5, 4)))
        optimizer = wrap(make_optimizer(**arguments))

        @tf.function
        def step(table=table, optimizer=optimizer, sparse=sparse):
            with tf.GradientTape() as tape:
                rows = tf.gather(table, words)
                loss = tf.reduce_sum(rows**2 * [1.0, 2.0, 3.0, 4.0])
                loss = tf.cast(loss, tf.float32)
                loss = optimizer.scale_loss(loss)
            (gradient,) = tape.gradient(loss, [table])
            assert isinstance(gradient, tf.IndexedSlices)
            if not sparse:
                gradient = tf.convert_to_tensor(gradient)
            optimizer.apply([gradient], [table])

        start = table.numpy()
        for _ in range(4):
            step()
        results.append(table.numpy())
        assert np.abs(table.numpy() - start).max() > 1e-3
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "weights, stays", [("default", True), ("default-v2", False), ("released", False)]
)
def test_rows_of_an_embedding_that_are_never_looked_up(weights, stays):
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Sequential([inputs, keras.layers.Embedding(5, 4)])
    model.compile(make_optimizer(weights=weights), loss="mse")
    words = np.array([[0, 1, 2]] * 8)
    before = model.get_weights()[0]
    model.fit(words, np.ones((8, 3, 4)), batch_size=4, verbose=0)
    after = model.get_weights()[0]
    assert np.all(after[:3] != before[:3])
    # `released` weights, as the paper's, add to each direction what the RNN reads out.
    assert np.array_equal(after[3:], before[3:]) == stays


@pytest.mark.parametrize("attention", [False, True])
def test_tensors_without_gradient_stay_as_they_are(attention):
    problem = Problem.make()
    weights = perturbed_weights(attention=attention)
    arguments = dict(weights=weights, weight_decay=0.3, **AVERAGED)
    variables = make_variables(problem)
    optimizer = make_optimizer(**arguments)
    expected = by_hand.OptimizerByHand(problem.values, **arguments)
    gradients = problem.gradients()
    for step in (2, 3):
        gradients[step][1] = gradients[step][3] = None

    def of_those():
        return [(variables[i].numpy(), optimizer.slots(variables[i])) for i in (1, 3)]

    for index, step in enumerate(gradients):
        before = of_those() if index else None
        apply_all(optimizer, variables, [step])
        expected.call(step)
        if index in (2, 3):
            assert_equal(of_those(), before)
    assert_follows(optimizer, variables, expected, attended=True)
    assert optimizer.skipped_steps == 0


def test_an_accumulated_update_leaves_no_sum_behind():
    problem = Problem.make(steps=6)
    gradients = problem.gradients()
    gradients[1][1] = None  # due: what the call before gave it counts nowhere
    gradients[2][3] = None  # not due: counts as 0 in the mean
    variables = make_variables(problem)
    optimizer = make_optimizer(gradient_accumulation_steps=2)
    expected = by_hand.OptimizerByHand(problem.values, gradient_accumulation_steps=2)
    for call, step in enumerate(gradients):
        apply_all(optimizer, variables, [step])
        expected.call(step)
        sums = numbers(optimizer._accumulated_gradients)
        assert [np.any(total != 0) for total in sums] == [
            not call % 2 and gradient is not None for gradient in step
        ]
    assert_follows(optimizer, variables, expected)


def test_a_subset_of_the_variables_may_be_passed():
    problem = Problem.make()
    variables = make_variables(problem)
    optimizer = make_optimizer()
    optimizer.build(variables)
    expected = by_hand.OptimizerByHand(problem.values)
    for index, step in enumerate(problem.gradients()):
        # In another order than they were built, too.
        chosen = [3, 0] if index % 2 else [2, 1, 0, 3]
        optimizer.apply(
            [tf.constant(step[i]) for i in chosen], [variables[i] for i in chosen]
        )
        expected.call([step[i] if i in chosen else None for i in range(4)])
    assert_follows(optimizer, variables, expected)


def test_a_variable_to_be_overwritten_by_its_gradient_is():
    problem = Problem.make(steps=2)
    variables = make_variables(problem)
    scale = keras.Variable(np.float32(3))
    scale.overwrite_with_gradient = True
    optimizer = make_optimizer(use_ema=True)
    with_scale = [variables[0], scale, *variables[1:]]
    for step in problem.gradients():
        apply_all(optimizer, with_scale, [[step[0], np.float32(7), *step[1:]]])
    assert float(scale) == 7
    assert_same(numbers(variables), problem.run_by_hand().values)
    optimizer.finalize_variable_values(with_scale)
    assert float(scale) == 7


def test_tensors_without_elements_are_carried_along():
    problem = Problem.make(steps=3)
    variables = make_variables(problem)
    empty = keras.Variable(np.zeros((0, 3), np.float32))
    optimizer = make_optimizer(clipnorm=1.0)
    for step in problem.gradients():
        apply_all(optimizer, [*variables, empty], [[*step, np.zeros((0, 3))]])
    assert optimizer.slots(empty)["hidden_state"].shape == (0, 10)
    assert all(np.all(np.isfinite(x)) for x in numbers(variables))


# Serialization.


ARGUMENTS = dict(
    learning_rate=0.5,
    initial_learning_rate=(1e-4, 1e-2),
    seed=7,
    weight_decay=0.1,
    global_clipnorm=2.0,
    use_ema=True,
    ema_momentum=0.9,
    ema_overwrite_frequency=5,
    loss_scale_factor=4.0,
    gradient_accumulation_steps=3,
    name="mine",
    jit_compile=False,
    state_dtype="bfloat16",
)


@pytest.mark.parametrize(
    "weights", ["default", "bootstrap-v1", None, "in memory"], ids=str
)
def test_a_config_makes_the_same_optimizer(weights):
    if weights == "in memory":
        weights = perturbed_weights(attention=True, level_sizes=(4, 5))
    original = HierarchicalRNN(weights=weights, **ARGUMENTS)
    copies = [
        HierarchicalRNN.from_config(original.get_config()),
        keras.optimizers.deserialize(keras.optimizers.serialize(original)),
    ]
    for copy in copies:
        assert copy.get_config() == original.get_config()
        for name, value in ARGUMENTS.items():
            assert getattr(copy, name) == value, name
        assert copy.config == original.config
        assert_equal(copy.weights.meta_parameters, original.weights.meta_parameters)


def test_a_config_is_json_and_names_the_version_of_shipped_weights():
    import json

    config = HierarchicalRNN().get_config()
    assert json.loads(json.dumps(config)) == config
    assert config["weights"] == load_weights("default").name != "default"


def test_compile_takes_its_registered_name():
    model = by_hand.make_model(Problem.make())
    model.compile("learned_optimizer>HierarchicalRNN", loss="mse")
    assert isinstance(model.optimizer, HierarchicalRNN)
    assert model.optimizer.weights.name == load_weights("default").name


# Bad input.


def test_unknown_variables_are_refused():
    problem = Problem.make(steps=1)
    variables = make_variables(problem)
    optimizer = make_optimizer()
    optimizer.build(variables[:3])
    before = everything_of(optimizer, variables)
    for call in (
        lambda: apply_all(optimizer, variables, problem.gradients()),
        lambda: optimizer.slots(variables[3]),
    ):
        with pytest.raises(ValueError, match="variables it was originally built with"):
            call()
    assert_equal(everything_of(optimizer, variables), before)


def test_calls_that_do_not_fit_the_variables_are_refused():
    optimizer = HierarchicalRNN()
    variables = make_variables(Problem.make())
    with pytest.raises(ValueError, match="was built"):
        optimizer.apply([tf.constant(1.0)])
    with pytest.raises(ValueError, match="1 gradients and 4 variables"):
        optimizer.apply([tf.constant(1.0)], variables)
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None] * 4, variables)
    optimizer.apply([])
    assert int(optimizer.iterations) == 0


def test_weights_that_contradict_their_config_are_refused():
    weights = perturbed_weights()
    with pytest.raises(ValueError, match="exactly those of their config"):
        dataclasses.replace(weights, config=Config(attention=True))
    with pytest.raises(ValueError, match="shape"):
        dataclasses.replace(weights, config=Config(level_sizes=(10, 20, 21)))
