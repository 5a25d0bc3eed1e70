"""What XLA compiles, what is traced anew, what models share, and where a step runs."""

import gc
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step import tensorflow_runner
from tests.conftest import run_python
from tests.learned_optimizer import by_hand

SHAPES = ((4, 3), (5,))


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """The functions made in a test, which share nothing with those of others."""
    tensorflow_runner._update_function.cache_clear()
    tensorflow_runner._stages.cache_clear()
    made = []
    make = tensorflow_runner._on_handles

    def on_handles(function, **options):
        made.append(make(function, **options))
        return made[-1]

    monkeypatch.setattr(tensorflow_runner, "_on_handles", on_handles)
    return made


def traces(functions):
    """How often each function was traced."""
    return [len(f.traced._list_all_concrete_functions()) for f in functions]


def is_compiled(function):
    """Whether XLA compiles all its traces."""
    attributes = [
        concrete.function_def.attr
        for concrete in function.traced._list_all_concrete_functions()
    ]
    assert attributes
    return all("_XlaMustCompile" in a and a["_XlaMustCompile"].b for a in attributes)


def new_variables(shapes=SHAPES):
    return [keras.Variable(np.ones(shape, np.float32)) for shape in shapes]


def flat(variables):
    return np.concatenate([np.ravel(variable) for variable in variables])


def ones_like(variables):
    return [tf.ones(variable.shape) for variable in variables]


@pytest.mark.parametrize(
    ("jit_compile", "smallest", "compiled", "in_one"),
    [
        ("auto", 17, True, True),
        ("auto", 18, False, True),
        (True, 18, True, True),
        (False, 17, False, True),
        ("auto", 17, True, False),
        (False, 17, False, False),
    ],
)
def test_what_is_compiled(jit_compile, smallest, compiled, in_one, traced, monkeypatch):
    if not in_one:
        monkeypatch.setattr(tensorflow_runner, "MOST_TENSORS_IN_ONE_PROGRAM", 1)
    monkeypatch.setattr(tensorflow_runner, "SMALLEST_COMPILED_SIZE", smallest)
    variables = new_variables()
    optimizer = HierarchicalRNN(jit_compile=jit_compile)
    optimizer.build(variables)
    optimizer.apply(ones_like(variables), variables)
    assert np.all(variables[1].numpy() < 1)
    wanted = [compiled]
    if compiled and not in_one:  # The three stages, and what is around them.
        wanted = [False, True, True, True]
    assert sorted(is_compiled(function) for function in traced) == wanted


def test_nothing_is_compiled_on_parameter_servers():
    optimizer = HierarchicalRNN(jit_compile=True)
    optimizer.build(new_variables())
    (runner,) = optimizer._runner
    # A real one needs a cluster; only its type is looked at.
    strategy = mock.Mock(spec=tf.distribute.experimental.ParameterServerStrategy)
    with mock.patch.object(runner, "strategy", strategy):
        assert not runner.compiles(optimizer._layout[0])


@pytest.mark.parametrize("jit_compile", [True, False])
def test_other_tensors_without_gradients_trace_nothing_anew(jit_compile, traced):
    problem = by_hand.Problem.make(steps=3)
    variables = by_hand.make_variables(problem)
    optimizer = by_hand.make_optimizer(jit_compile=jit_compile)
    expected = by_hand.OptimizerByHand(problem.values)
    for step, gradients in enumerate(problem.gradients()):
        given = [None if i == step else x for i, x in enumerate(gradients)]
        by_hand.apply_all(optimizer, variables, [given])
        expected.call(given)
    by_hand.assert_follows(optimizer, variables, expected)
    assert set(traces(traced)) == {1}


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("weight_decay", (0.1, 0.02, 0.3)),
        ("clipnorm", (1.0, 0.2, 3.0)),
        ("clipvalue", (1.0, 0.2, 0.03)),
        ("global_clipnorm", (1.0, 0.2, 3.0)),
        ("loss_scale_factor", (2.0, 4.0, 8.0)),
        ("gradient_accumulation_steps", (2, 3, 4)),
    ],
)
def test_settings_that_change_between_steps_trace_nothing_anew(setting, values, traced):
    def trained(change):
        variables = new_variables()
        optimizer = HierarchicalRNN(**{setting: values[0]}, jit_compile=False)
        for value in values:
            if change:
                setattr(optimizer, setting, value)
            optimizer.apply(ones_like(variables), variables)
            optimizer.apply(ones_like(variables), variables)
        return flat(variables)

    changed = trained(True)
    assert traces(traced) == [1]
    # The new values count.
    assert np.any(np.abs(changed - trained(False)) > 1e-6)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("inside", [True, False], ids=["in a function", "eagerly"])
def test_models_of_equal_shapes_share_what_is_traced(jit_compile, inside, traced):
    def trained():
        variables = new_variables()
        optimizer = HierarchicalRNN(jit_compile=jit_compile)
        optimizer.build(variables)

        def step(gradients):
            optimizer.apply(gradients, variables)

        if inside:
            step = tf.function(step, autograph=False)
        for _ in range(2):
            step(ones_like(variables))
        return flat(variables)

    results = []
    for _ in range(3):
        results.append(trained())
        gc.collect()  # The first model is gone when the next one comes.
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    assert set(traces(traced)) == {1}


@pytest.mark.parametrize("use_ema", [False, True])
def test_a_step_that_builds_the_optimizer_is_traced_once(use_ema):
    variables = new_variables()
    optimizer = HierarchicalRNN(jit_compile=False, use_ema=use_ema)
    traced = []

    @tf.function
    def step(gradients):
        traced.append(1)
        optimizer.apply(gradients, variables)

    step(ones_like(variables))
    assert len(traced) == 1
    assert np.all(variables[1].numpy() < 1)


# Two shards, whose pass is compiled once, and a last batch that is smaller.
_FITS = """
import keras, numpy as np
from learned_optimizer import HierarchicalRNN
layers = [keras.Input((100,)), keras.layers.Dense(1500), keras.layers.Dense(1)]
model = keras.Sequential(layers)
model.compile(HierarchicalRNN(), "mse")
inputs = np.ones((40, 100), np.float32)
for epochs in (2, 1):
    model.fit(inputs, inputs[:, :1], batch_size=16, epochs=epochs, verbose=0)
assert model.optimizer._layout[0].shards == 2
"""


@pytest.mark.slow
def test_fits_compile_each_stage_once(tmp_path):
    flags = f"--xla_dump_to={tmp_path} --xla_backend_optimization_level=0"
    run_python("-c", _FITS, XLA_FLAGS=flags).check_returncode()
    # XLA writes a file for each program that it compiles.
    assert len(list(tmp_path.glob("*traced*.before_optimizations.txt"))) == 3


def test_nothing_of_a_model_stays_alive():
    def fit():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(HierarchicalRNN(), "mse")
        x = np.ones((4, 2), np.float32)
        model.fit(x, x[:, :1], verbose=0)

    def graphs():
        gc.collect()
        return sum(isinstance(x, FuncGraph) for x in gc.get_objects())

    fit()  # Leaves what models share.
    before = graphs()
    fit()
    fit()
    assert graphs() == before


def test_no_more_than_so_many_functions_are_kept():
    for size in range(1, 41):
        variables = new_variables([(size,)])
        optimizer = HierarchicalRNN(jit_compile=False)
        optimizer.build(variables)
        spec = optimizer.step_spec((0,))
        key = spec.layout, spec.config, (0,), False, False, False
        tensorflow_runner._update_function(*key)
    for cache in (tensorflow_runner._update_function, tensorflow_runner._stages):
        assert cache.cache_info().currsize == cache.cache_info().maxsize == 32


@pytest.mark.parametrize("jit_compile", [True, False])
def test_eager_functions_are_what_they_are_asked_to_be(jit_compile, traced):
    variables = new_variables()
    optimizer = HierarchicalRNN(jit_compile=jit_compile)
    tf.config.run_functions_eagerly(True)
    try:
        optimizer.apply(ones_like(variables), variables)
    finally:
        tf.config.run_functions_eagerly(False)
    assert np.all(variables[1].numpy() < 1)
    assert set(traces(traced)) == {0}


@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_numbers_can_be_checked(jit_compile, traced, monkeypatch):
    monkeypatch.setattr(tensorflow_runner, "SMALLEST_COMPILED_SIZE", 1)
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(HierarchicalRNN(jit_compile=jit_compile), "mse", jit_compile=False)
    x = np.ones((4, 2), np.float32)
    tf.debugging.enable_check_numerics()
    try:
        model.fit(x, x[:, :1], verbose=0)
        assert not any(map(is_compiled, traced))
    finally:
        tf.debugging.disable_check_numerics()
    # What was traced with the checks is not used without them.
    again = keras.models.clone_model(model)
    again.compile(HierarchicalRNN(jit_compile=jit_compile), "mse")
    again.fit(x, x[:, :1], verbose=0)
    assert any(map(is_compiled, traced))


@pytest.mark.distributed
def test_a_step_runs_where_its_state_lies():
    def trained(jit_compile, devices):
        keras.utils.set_random_seed(0)
        with tf.device(devices[0]):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        with tf.device(devices[1]):
            optimizer = HierarchicalRNN(jit_compile=jit_compile)
            optimizer.build(model.trainable_variables)
        model.compile(optimizer, "mse")
        x = np.arange(8, dtype=np.float32).reshape(4, 2)
        with tf.device(devices[2]):
            history = model.fit(x, x[:, :1], epochs=3, verbose=0)
        return history.history["loss"]

    one, other = "CPU:0", "CPU:1"
    for jit_compile in (True, False):
        wanted = trained(jit_compile, (one, one, one))
        # Of the model, the optimizer and `fit`.
        for devices in (one, one, other), (other, one, one), (one, other, ""):
            found = trained(jit_compile, devices)
            np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=str(devices))


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
