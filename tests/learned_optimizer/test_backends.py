"""JAX and PyTorch do what TensorFlow does; each in a process of its own.

`keras_step/test_state_io.py` carries states from one backend to another.
"""

import keras
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN
from tests.conftest import on_backends, output_of
from tests.learned_optimizer import by_hand
from tests.learned_optimizer.ways import BEHAVIOURS, WAYS, check

STEP_WITHOUT_TENSORFLOW = """
import sys
import keras
import learned_optimizer
variable = keras.Variable([[1.0, 2.0]])
optimizer = learned_optimizer.HierarchicalRNN()
optimizer.apply([keras.ops.ones((1, 2))], [variable])
try:
    optimizer.export("folder")
except ValueError as error:
    assert "backend of Keras must be 'tensorflow'" in str(error)
moved = bool(keras.ops.convert_to_numpy(variable)[0, 0] < 1)
print(keras.config.backend(), moved, [m for m in sys.modules if m == "tensorflow"])
"""
OTHERS = on_backends("jax", "torch", is_slow=True)


@pytest.mark.parametrize("backend", OTHERS)
def test_behaviours_come_out_as_by_hand(backend):
    """Also in mixed precision, under a loss scale."""
    assert keras.config.backend() == backend
    names = ["everything", "attention_everything", "unused"]
    for name in names:
        check(BEHAVIOURS[name], WAYS["apply_in_chunks"](BEHAVIOURS[name]))
    for name in (*names, "not_finite_accumulated", "schedule", "no_output_scale"):
        check(BEHAVIOURS[name], WAYS["fit"](BEHAVIOURS[name]))
    problem = by_hand.Problem.make()
    inputs = np.random.default_rng(1).integers(-32, 33, problem.inputs.shape) / 64
    problem = by_hand.Problem(problem.values, inputs.astype(np.float32))
    keras.config.set_dtype_policy("mixed_float16")
    model = by_hand.make_model(problem)
    by_hand.fit(model, BEHAVIOURS["clipnorm"].optimizer(), problem)
    inner = model.optimizer.inner_optimizer
    expected = problem.run_by_hand(clipnorm=0.5)
    by_hand.assert_follows(inner, model.trainable_variables, expected)


@pytest.mark.parametrize("backend", OTHERS)
def test_loading_costs_no_model(backend, tmp_path):
    from tests.learned_optimizer import test_loading as loading

    frozen = loading.freeze, "file", HierarchicalRNN
    for test, *arguments in (
        (loading.test_compile_load_fit_goes_on, loading.everything),
        (loading.test_variables_that_are_left_keep_their_state, *frozen),
        (loading.test_variables_that_are_new_start_afresh, HierarchicalRNN),
        (loading.test_a_refusal_names_the_ways_out_and_each_works,),
    ):
        folder = tmp_path / test.__name__
        folder.mkdir()
        test(*arguments, folder)


@pytest.mark.parametrize("backend", OTHERS)
def test_without_tensorflow_none_is_imported(backend):
    # A process without pytest: `keras.utils.set_random_seed`, which seeds each test,
    # imports TensorFlow where it is installed, and so may `fit`.
    output = output_of("-c", STEP_WITHOUT_TENSORFLOW, KERAS_BACKEND=backend)
    assert output.split() == [backend, "True", "[]"]


@pytest.mark.parametrize("backend", [*on_backends("jax"), OTHERS[1]])
def test_true_values_are_swapped(backend):
    from tests.learned_optimizer import test_callbacks

    assert keras.config.backend() == backend
    test_callbacks.test_true_values_are_in_the_model_for_validation_and_saving()


@pytest.mark.slow
@pytest.mark.backend("jax")
def test_fits_under_jax_compile_their_step_once(caplog):
    import jax

    jax.config.update("jax_log_compiles", True)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(50)])
    model.compile(HierarchicalRNN(), "mse")
    inputs = np.ones((48, 20), np.float32)
    for epochs in (2, 1):
        model.fit(inputs, inputs[:, :1], batch_size=16, epochs=epochs, verbose=0)
    done = "Finished XLA compilation of jit(train_step)"
    assert sum(done in message for message in caplog.messages) == 1
