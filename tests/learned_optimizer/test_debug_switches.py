"""Steps stay the same under the switches that people debug with.

More of them are in `keras_step/test_tensorflow_runner.py`.
"""

import functools

import keras
import pytest

from tests.conftest import on_backends
from tests.learned_optimizer import by_hand

BACKENDS = on_backends("tensorflow", "jax", "torch", is_slow=True)


def set_float(name):
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)


def switches_of(backend):
    """`(function, its argument to turn on, that to turn off)` of each switch."""
    found = [(set_float, "float64", "float32")]
    if backend == "tensorflow":
        import tensorflow as tf

        def determinism(on):
            if on:  # There is no way back.
                tf.config.experimental.enable_op_determinism()

        found.append((tf.debugging.set_log_device_placement, True, False))
        found.append((determinism, True, False))
    elif backend == "jax":
        import jax

        for name in ("debug_nans", "debug_infs", "disable_jit", "enable_x64"):
            switch = functools.partial(jax.config.update, f"jax_{name}")
            found.append((switch, True, False))
    else:
        import torch

        found.append((torch.autograd.set_detect_anomaly, True, False))
        found.append((torch.set_default_dtype, torch.float64, torch.float32))
    return found


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_the_same_under_each_switch(backend):
    options = dict(global_clipnorm=1.0, use_ema=True, ema_momentum=0.5)
    problem = by_hand.Problem.make(steps=3)
    expected = problem.run_by_hand(**options)
    for jit_compile in (False, True) if backend == "tensorflow" else ("auto",):
        for switch, on, off in switches_of(backend):
            switch(on)
            model = by_hand.make_model(problem)
            optimizer = by_hand.make_optimizer(jit_compile=jit_compile, **options)
            by_hand.fit(model, optimizer, problem)
            variables = model.trainable_variables
            by_hand.assert_same_state(optimizer, variables, expected)
            by_hand.assert_same(by_hand.numbers(variables), expected.final_values())
            switch(off)


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
    optimizer = by_hand.make_optimizer()
    by_hand.fit(model, optimizer, problem, jit_compile=True)
    assert compiled == [False, False]
    by_hand.assert_follows(optimizer, model.trainable_variables, problem.run_by_hand())
