"""Steps stay the same under the switches that people debug with.

The switches are of a whole process, so each backend has its own, in which they are
turned on and off one after the other. `tf.debugging.enable_check_numerics` and
`tf.config.run_functions_eagerly` are in `keras_step/test_tensorflow_runner.py`.
"""

import contextlib

import keras
import pytest

from learned_optimizer import HierarchicalRNN
from tests.learned_optimizer import by_hand

BACKENDS = [
    pytest.param(name, marks=pytest.mark.backend(name))
    for name in ("tensorflow", "jax", "torch")
]


@contextlib.contextmanager
def double_precision():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def tensorflow_switches():
    import tensorflow as tf

    @contextlib.contextmanager
    def placement():
        tf.debugging.set_log_device_placement(True)
        yield
        tf.debugging.set_log_device_placement(False)

    @contextlib.contextmanager
    def tracebacks():
        tf.debugging.disable_traceback_filtering()
        yield
        tf.debugging.enable_traceback_filtering()

    @contextlib.contextmanager
    def determinism():
        tf.config.experimental.enable_op_determinism()
        yield  # There is no way back.

    return [placement, tracebacks, double_precision, determinism]


def jax_switches():
    import jax

    @contextlib.contextmanager
    def switched(name):
        jax.config.update(name, True)
        yield
        jax.config.update(name, False)

    def of(name):
        return lambda: switched(name)

    names = "jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_enable_x64"
    return [*map(of, names), double_precision]


def torch_switches():
    import torch

    @contextlib.contextmanager
    def default_dtype():
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)

    return [torch.autograd.detect_anomaly, default_dtype, double_precision]


SWITCHES = {
    "tensorflow": tensorflow_switches,
    "jax": jax_switches,
    "torch": torch_switches,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_the_same_under_each_switch(backend):
    options = dict(global_clipnorm=1.0, use_ema=True, ema_momentum=0.5)
    problem = by_hand.Problem.make(steps=3)
    expected = problem.run_by_hand(**options)
    for jit_compile in (False, True) if backend == "tensorflow" else ("auto",):
        for switch in SWITCHES[backend]():
            with switch():
                model = by_hand.make_model(problem)
                optimizer = HierarchicalRNN(
                    initial_learning_rate=by_hand.INITIAL_LEARNING_RATE,
                    jit_compile=jit_compile,
                    **options,
                )
                by_hand.fit(model, optimizer, problem)
                variables = model.trainable_variables
                by_hand.assert_same_state(optimizer, variables, expected)
                by_hand.assert_same(by_hand.numbers(variables), expected.final_values())


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.parametrize("backend", BACKENDS[2:])
def test_torch_compile_stays_out_of_a_step(backend):
    import torch

    problem = by_hand.Problem.make(steps=2)
    model = by_hand.make_model(problem)
    compiled = []

    def constraint(value):
        compiled.append(torch.compiler.is_compiling())
        return value

    model.trainable_variables[0].constraint = constraint
    optimizer = HierarchicalRNN(initial_learning_rate=by_hand.INITIAL_LEARNING_RATE)
    by_hand.fit(model, optimizer, problem, jit_compile=True)
    assert compiled == [False, False]
    by_hand.assert_follows(optimizer, model.trainable_variables, problem.run_by_hand())
