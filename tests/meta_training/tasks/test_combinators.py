"""Tasks made from tasks: the same computation, no noise, the formulas."""

import numpy as np

from meta_training.tasks import SumTask, log_objective, rescale, sparse_gradient
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.released.test_functions import Saddle
from meta_training.tasks.small_networks.perceptrons import Perceptron
from tests.meta_training.tasks.stacks import drawn


def test_wrappers_keep_the_computation_and_drop_the_noise():
    noisy = Quadratic(6, noise_stdev=0.5)
    variants = [
        rescale(noisy, 3.0),
        log_objective(noisy),
        sparse_gradient(noisy, 0.9),
        rescale(log_objective(noisy), 2.0),
    ]
    assert {task.batch_key for task in variants} == {noisy.batch_key}
    assert {task.noise_stdev for task in variants} == {0.0}
    assert [task.gradient_zero_probability for task in variants] == [0, 0, 0.9, 0]
    assert rescale(rescale(noisy, 3.0), 2.0).parameter_scale == 6.0
    assert SumTask([noisy, Saddle()]).noise_stdev == 0.0
    assert not SumTask([noisy, Saddle()]).positive


def test_wrapped_network():
    """A general task is rescaled and made logarithmic by the same formulas."""
    task = Perceptron(4, (3,), 3, rows=8, batch_size=4)
    scaled = rescale(task, 20.0)
    assert (scaled.rows, scaled.batch_size) == (8, 4)
    assert scaled.batch_key == rescale(task, 3.0).batch_key
    parameters, instance = drawn([task, task])
    _, scaled_instance = drawn([scaled, scaled])
    plain = task.objective(parameters, instance)
    found = scaled.objective([20 * x for x in parameters], scaled_instance)
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    found = log_objective(task).objective(parameters, instance)
    wanted = np.log(plain + 1e-6) - np.log(1e-6)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    starts = [t.sample_parameters(np.random.default_rng(3))[0] for t in (scaled, task)]
    np.testing.assert_allclose(starts[0], 20 * starts[1])
