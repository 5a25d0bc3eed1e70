"""JAX and PyTorch do what TensorFlow does; each in a process of its own.

`test_saving.py` carries states from one backend to another.
"""

import sys

import keras
import numpy as np
import pytest

from tests.learned_optimizer import by_hand
from tests.learned_optimizer.ways import BEHAVIOURS, WAYS, check

OTHERS = [
    pytest.param(name, marks=pytest.mark.backend(name)) for name in ("jax", "torch")
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("way", ["apply_in_chunks", "fit"])
def test_behaviours_come_out_as_by_hand(backend, way):
    assert keras.config.backend() == backend
    names = ["everything", "attention_everything"]
    if way == "fit":
        names += ["not_finite_accumulated", "schedule", "no_output_scale"]
    for name in names:
        check(BEHAVIOURS[name], WAYS[way](BEHAVIOURS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_mixed_precision_and_a_loss_scale(backend):
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
def test_without_tensorflow_none_is_imported(backend):
    import learned_optimizer

    assert keras.config.backend() == backend
    variable = keras.Variable(np.ones((3, 2), np.float32))
    optimizer = learned_optimizer.HierarchicalRNN()
    # A step, not a `fit`: Keras's data adapters may look for TensorFlow themselves.
    optimizer.apply([np.ones((3, 2), np.float32)], [variable])
    assert np.all(keras.ops.convert_to_numpy(variable) < 1)
    assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]


@pytest.mark.parametrize("backend", OTHERS)
def test_true_values_are_swapped(backend):
    from tests.learned_optimizer import test_callbacks

    test_callbacks.check_true_values_are_swapped()
