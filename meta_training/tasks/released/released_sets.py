"""The problem sets of the released code, by their own names (problem_sets.py).

`released` joins those that the released command line turns on, in its order;
`no_neural_networks` is `released` without every task that has a network in it.
"""

import math

from meta_training.tasks.base import register_task_set, task_set
from meta_training.tasks.combinators import (
    SumTask,
    log_objective,
    rescale,
    sparse_gradient,
)
from meta_training.tasks.released.algebraic import Bowl, Norm, Quadratic
from meta_training.tasks.released.classifiers import (
    ConvNet,
    FullyConnected,
    OneHotSparseSoftmaxRegression,
    SoftmaxRegression,
    SparseSoftmaxRegression,
)
from meta_training.tasks.released.matrix_multiplication import MatrixMultiplication
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
    *(Ackley, Beale, Booth, Branin, LogSumExp, Matyas, Michalewicz),
    *(Rosenbrock, StyblinskiTang),
)
_SUMMED = (
    *(Rosenbrock, LogSumExp, Ackley, Beale, Booth, StyblinskiTang, Matyas, Branin),
    Michalewicz,
)
_SUMMED_DIMENSIONS = (11, 3, 9, 7, 5, 13, 12)


def _bowls(noise_stdev=0.0):
    """Two-dimensional bowls, one of them rotated."""
    plain = [Bowl(number, noise_stdev=noise_stdev) for number in (0.1, 1.0, 5.0)]
    return [*plain, Bowl(5.0, math.pi / 4, noise_stdev=noise_stdev)]


def _softmax_regressions(noise_stdevs=(0.0, 0.0, 0.0, 0.0)):
    """Two-class softmax regressions of 10 to 256 features."""
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


def _perceptrons():
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


def _products():
    """Algorithms for the products of 2 x 2 and 3 x 3 matrices."""
    two = [MatrixMultiplication(2, products) for products in range(5, 9)]
    return two + [MatrixMultiplication(3, products) for products in range(19, 25)]


def _wrapped():
    quadratics = [Quadratic(dimension) for dimension in (20, 50, 100)]
    return quadratics + [Bowl(number) for number in (0.1, 1.0, 5.0)]


def _rescaled():
    """Norms and quadratics with parameters of very different sizes."""
    norms = {2.5: 0.123, 1.5: 8.0, 2.0: 50.0, 3.0: 200.0, 1.0: 1000.0}
    quadratics = {20: 0.1, 25: 10.0, 50: 350.0, 100: 132.0}
    return [rescale(Norm(18, power), scale) for power, scale in norms.items()] + [
        rescale(Quadratic(size), scale) for size, scale in quadratics.items()
    ]


def _sums():
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


def _noisy_sums():
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
    """Tasks of a kind that draw minibatches of rows."""
    return [
        kind(dimension, count, batch_size=batch_size)
        for dimension, count, batch_size in zip(
            _CHAINS * 2, rows, _BATCH_SIZES, strict=True
        )
    ]


_SETS = {
    "quadratic_problems": lambda: [Quadratic(size) for size in (20, 25, 50, 100)],
    # As released, one of them without noise.
    "quadratic_problems_noisy": lambda: [
        Quadratic(size, noise_stdev=stdev)
        for size, stdev in {20: 0.5, 25: 0.0, 50: 1.0, 100: 2.0}.items()
    ],
    "quadratic_problems_large": lambda: [Quadratic(n) for n in (784, 1024, 2048)],
    "bowl_problems": _bowls,
    "bowl_problems_noisy": lambda: _bowls(0.1),
    # The released batch size of these two is 23, of data with 5 rows: every batch is
    # the whole data.
    "sparse_softmax_2_class_sparse_problems": lambda: [
        SparseSoftmaxRegression(5, data_seed=RELEASED_SEED)
    ],
    "one_hot_sparse_softmax_2_class_sparse_problems": lambda: [
        OneHotSparseSoftmaxRegression(5, data_seed=RELEASED_SEED)
    ],
    "softmax_2_class_problems": _softmax_regressions,
    "softmax_2_class_problems_noisy": lambda: _softmax_regressions(
        (0.5, 0.1, 0.1, 0.5)
    ),
    "optimization_test_problems": lambda: [function() for function in _ALPHABETIC],
    "optimization_test_problems_noisy": lambda: [
        function(noise_stdev=1.0) for function in _ALPHABETIC
    ],
    "fully_connected_random_2_class_problems": _perceptrons,
    "matmul_problems": _products,
    "log_objective_problems": lambda: [log_objective(task) for task in _wrapped()],
    # 99% of the gradient is zeroed.
    "sparse_gradient_problems": lambda: [sparse_gradient(task) for task in _wrapped()],
    "sparse_gradient_problems_mlp": lambda: [
        sparse_gradient(task) for task in _perceptrons()[:3]
    ],
    "rescale_problems": _rescaled,
    "norm_problems": lambda: [Norm(27, 1.0), Norm(25, 2.0), Norm(22, 3.0)],
    "norm_problems_noisy": lambda: [
        Norm(size, power, noise_stdev=0.1)
        for size, power in {19: 1.0, 26: 2.0, 23: 3.0}.items()
    ],
    "sum_problems": _sums,
    "sum_problems_noisy": _noisy_sums,
    "dependency_chain_problems": lambda: [DependencyChain(n) for n in _CHAINS * 2],
    "outward_snake_problems": lambda: _row_tasks(OutwardSnake, _ROWS),
    "min_max_well_problems": lambda: [MinMaxWell(n) for n in _CHAINS],
    "sum_of_quadratics_problems": lambda: _row_tasks(SumOfQuadratics, _SYMMETRIC_ROWS),
    "projection_quadratic_problems": lambda: _row_tasks(
        ProjectionQuadratic, _SYMMETRIC_ROWS
    ),
}
for _name, _tasks in _SETS.items():
    register_task_set(_name)(_tasks)


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
