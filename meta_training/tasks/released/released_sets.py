"""The problem sets of the released code, by their own names (problem_sets.py).

`released` joins those that the released command line turns on, in its order;
`no_neural_networks` is `released` without every task that has a network in it.
"""

import math

from meta_training.tasks.combinators import (
    SumTask,
    log_objective,
    rescale,
    sparse_gradient,
)
from meta_training.tasks.released.bowl import Bowl
from meta_training.tasks.released.convolutional import ConvNet
from meta_training.tasks.released.fully_connected import FullyConnected
from meta_training.tasks.released.matrix_multiplication import MatrixMultiplication
from meta_training.tasks.released.norm import Norm
from meta_training.tasks.released.quadratics import Quadratic
from meta_training.tasks.released.softmax_regression import (
    OneHotSparseSoftmaxRegression,
    SoftmaxRegression,
    SparseSoftmaxRegression,
)
from meta_training.tasks.released.structured import (
    DependencyChain,
    MinMaxWell,
    OutwardSnake,
    ProjectionQuadratic,
    SumOfQuadratics,
)
from meta_training.tasks.released.test_functions import (
    Ackley,
    Beale,
    Booth,
    Branin,
    LogSumExp,
    Matyas,
    Michalewicz,
    Rosenbrock,
    StyblinskiTang,
)
from meta_training.tasks.small_networks.networks import Network
from meta_training.tasks.task_sets import register_task_set, task_set

RELEASED_SEED = 123

# The order of metarun.py of the released code.
ON_BY_DEFAULT = (
    "quadratic_problems_noisy",
    "quadratic_problems_large",
    "bowl_problems",
    "bowl_problems_noisy",
    "softmax_2_class_problems",
    "softmax_2_class_problems_noisy",
    "optimization_test_problems",
    "optimization_test_problems_noisy",
    "fully_connected_random_2_class_problems",
    "matmul_problems",
    "log_objective_problems",
    "rescale_problems",
    "norm_problems",
    "norm_problems_noisy",
    "sum_problems",
    "sum_problems_noisy",
    "sparse_gradient_problems",
    "sparse_gradient_problems_mlp",
)

_ALPHABETIC = (
    Ackley,
    Beale,
    Booth,
    Branin,
    LogSumExp,
    Matyas,
    Michalewicz,
    Rosenbrock,
    StyblinskiTang,
)
_SUMMED = (
    Rosenbrock,
    LogSumExp,
    Ackley,
    Beale,
    Booth,
    StyblinskiTang,
    Matyas,
    Branin,
    Michalewicz,
)
_SUMMED_DIMENSIONS = (11, 3, 9, 7, 5, 13, 12)


@register_task_set("quadratic_problems")
def quadratic_problems():
    """Quadratics of 20 to 100 dimensions."""
    return [Quadratic(dimension) for dimension in (20, 25, 50, 100)]


@register_task_set("quadratic_problems_noisy")
def quadratic_problems_noisy():
    """The same with gradient noise, and one without, as released."""
    noise = {20: 0.5, 25: 0.0, 50: 1.0, 100: 2.0}
    return [Quadratic(size, noise_stdev=stdev) for size, stdev in noise.items()]


@register_task_set("quadratic_problems_large")
def quadratic_problems_large():
    """Quadratics of 784 to 2,048 dimensions."""
    return [Quadratic(dimension) for dimension in (784, 1024, 2048)]


def _bowls(noise_stdev):
    plain = [Bowl(number, noise_stdev=noise_stdev) for number in (0.1, 1.0, 5.0)]
    return [*plain, Bowl(5.0, math.pi / 4, noise_stdev=noise_stdev)]


@register_task_set("bowl_problems")
def bowl_problems():
    """Two-dimensional bowls, one of them rotated."""
    return _bowls(0.0)


@register_task_set("bowl_problems_noisy")
def bowl_problems_noisy():
    """The same with gradient noise."""
    return _bowls(0.1)


# The released batch size of the two sparse sets is 23, of data with 5 rows: every
# batch is the whole data.


@register_task_set("sparse_softmax_2_class_sparse_problems")
def sparse_softmax_problems():
    """A softmax regression on looked-up embeddings."""
    return [SparseSoftmaxRegression(5, data_seed=RELEASED_SEED)]


@register_task_set("one_hot_sparse_softmax_2_class_sparse_problems")
def one_hot_sparse_softmax_problems():
    """The same with one-hot rows."""
    return [OneHotSparseSoftmaxRegression(5, data_seed=RELEASED_SEED)]


def _softmax_regressions(noise_stdevs):
    features, separations = (10, 100, 200, 256), (2.0, 1.0, 1.5, 1.5)
    batch_sizes = (100, 50, 20, 100)
    return [
        SoftmaxRegression(
            width,
            separation=separation,
            data_seed=RELEASED_SEED,
            batch_size=batch_size,
            noise_stdev=noise_stdev,
        )
        for width, separation, batch_size, noise_stdev in zip(
            features, separations, batch_sizes, noise_stdevs, strict=True
        )
    ]


@register_task_set("softmax_2_class_problems")
def softmax_problems():
    """Two-class softmax regressions of 10 to 256 features."""
    return _softmax_regressions((0.0, 0.0, 0.0, 0.0))


@register_task_set("softmax_2_class_problems_noisy")
def softmax_problems_noisy():
    """The same with gradient noise."""
    return _softmax_regressions((0.5, 0.1, 0.1, 0.5))


@register_task_set("optimization_test_problems")
def optimization_test_problems():
    """Nine two-dimensional test functions."""
    return [function() for function in _ALPHABETIC]


@register_task_set("optimization_test_problems_noisy")
def optimization_test_problems_noisy():
    """The same with gradient noise."""
    return [function(noise_stdev=1.0) for function in _ALPHABETIC]


@register_task_set("fully_connected_random_2_class_problems")
def fully_connected_problems():
    """Sigmoid perceptrons with one to four hidden layers."""
    return [
        FullyConnected(8, (8, 5), batch_size=10),
        FullyConnected(12, (8, 5, 3), batch_size=200),
        FullyConnected(5, (4, 4, 4, 4), batch_size=100),
        FullyConnected(11, (4, 5, 6), batch_size=64),
        FullyConnected(9, (8,), batch_size=128),
        FullyConnected(7, (8, 5), batch_size=16),
        FullyConnected(8, (32, 64), batch_size=10),
        FullyConnected(12, (16, 8, 3), batch_size=200),
        FullyConnected(5, (8, 8, 8, 8), batch_size=100),
        FullyConnected(11, (10, 12, 12), batch_size=64),
        FullyConnected(9, (32,), batch_size=128),
        FullyConnected(7, (32, 64), batch_size=16),
    ]


@register_task_set("matmul_problems")
def matmul_problems():
    """Algorithms for the products of 2 x 2 and 3 x 3 matrices."""
    two = [MatrixMultiplication(2, products) for products in range(5, 9)]
    three = [MatrixMultiplication(3, products) for products in range(19, 25)]
    return two + three


def _wrapped():
    quadratics = [Quadratic(dimension) for dimension in (20, 50, 100)]
    return quadratics + [Bowl(number) for number in (0.1, 1.0, 5.0)]


@register_task_set("log_objective_problems")
def log_objective_problems():
    """Logarithms of quadratics and bowls."""
    return [log_objective(task) for task in _wrapped()]


@register_task_set("sparse_gradient_problems")
def sparse_gradient_problems():
    """Quadratics and bowls with 99% of the gradient zeroed."""
    return [sparse_gradient(task) for task in _wrapped()]


@register_task_set("sparse_gradient_problems_mlp")
def sparse_gradient_problems_mlp():
    """Perceptrons with 99% of the gradient zeroed."""
    return [sparse_gradient(task) for task in fully_connected_problems()[:3]]


@register_task_set("rescale_problems")
def rescale_problems():
    """Norms and quadratics with parameters of very different sizes."""
    norms = {2.5: 0.123, 1.5: 8.0, 2.0: 50.0, 3.0: 200.0, 1.0: 1000.0}
    quadratics = {20: 0.1, 25: 10.0, 50: 350.0, 100: 132.0}
    return [rescale(Norm(18, power), scale) for power, scale in norms.items()] + [
        rescale(Quadratic(size), scale) for size, scale in quadratics.items()
    ]


@register_task_set("norm_problems")
def norm_problems():
    """The 1-, 2- and 3-norm of a linear system."""
    return [Norm(27, 1.0), Norm(25, 2.0), Norm(22, 3.0)]


@register_task_set("norm_problems_noisy")
def norm_problems_noisy():
    """The same, in other dimensions, with gradient noise."""
    powers = {19: 1.0, 26: 2.0, 23: 3.0}
    return [Norm(size, power, noise_stdev=0.1) for size, power in powers.items()]


@register_task_set("sum_problems")
def sum_problems():
    """Sums of unrelated problems, each in separate tensors."""
    functions = [function() for function in _SUMMED]
    return [
        SumTask([Quadratic(dimension) for dimension in _SUMMED_DIMENSIONS]),
        SumTask([Norm(18, 3.0), Quadratic(25), Rosenbrock()]),
        SumTask(functions),
        SumTask([*functions, Quadratic(5), Quadratic(13)]),
        SumTask([Quadratic(11), Quadratic(3)]),
        SumTask([Rosenbrock(), LogSumExp(), Ackley()]),
    ]


@register_task_set("sum_problems_noisy")
def sum_problems_noisy():
    """Two such sums; a released sum ignores the noise of its parts."""
    functions = [function() for function in _SUMMED]
    quadratics = [Quadratic(size, noise_stdev=0.1) for size in _SUMMED_DIMENSIONS]
    return [
        SumTask(quadratics),
        SumTask([*functions, Quadratic(5), Quadratic(13, noise_stdev=0.5)]),
    ]


_CHAINS = (20, 12, 56, 64, 13)
_ROWS = (1000, 200, 5000, 1000, 10000, 1000, 300, 5000, 1000, 10000)
_SYMMETRIC_ROWS = (1000, 100, 5000, 1000, 10000) * 2
_BATCH_SIZES = (100, 10, 100, 50, 50, 128, 16, 128, 64, 32)


def _row_tasks(kind, rows):
    return [
        kind(dimension, count, batch_size=batch_size)
        for dimension, count, batch_size in zip(
            _CHAINS * 2, rows, _BATCH_SIZES, strict=True
        )
    ]


@register_task_set("dependency_chain_problems")
def dependency_chain_problems():
    """Chains of 12 to 64 parameters to be solved in order."""
    return [DependencyChain(dimension) for dimension in _CHAINS * 2]


@register_task_set("outward_snake_problems")
def outward_snake_problems():
    """Winding paths to infinity, on minibatches."""
    return _row_tasks(OutwardSnake, _ROWS)


@register_task_set("min_max_well_problems")
def min_max_well_problems():
    """Wells that only the extreme parameters feel."""
    return [MinMaxWell(dimension) for dimension in _CHAINS]


@register_task_set("sum_of_quadratics_problems")
def sum_of_quadratics_problems():
    """Quadratics about random points, on minibatches."""
    return _row_tasks(SumOfQuadratics, _SYMMETRIC_ROWS)


@register_task_set("projection_quadratic_problems")
def projection_quadratic_problems():
    """Quadratics along random directions, on minibatches."""
    return _row_tasks(ProjectionQuadratic, _SYMMETRIC_ROWS)


@register_task_set("released")
def released():
    """Every problem that the released command line turns on."""
    return [task for name in ON_BY_DEFAULT for task in task_set(name)]


@register_task_set("no_neural_networks")
def no_neural_networks():
    """`released` without networks: what the abstract of the paper claims."""
    return [task for task in released() if not has_network(task)]


def has_network(task) -> bool:
    """Whether the task, or any task inside it, is a network with hidden layers."""
    return isinstance(task, FullyConnected | ConvNet | Network) or any(
        has_network(component) for component in task.components
    )
