"""The tasks of meta-training, one file a family, and all sets of them that ship.

`released` is what the released command line turns on, `no_neural_networks` what the
abstract of the paper claims, `default` is `released` and small networks of many kinds,
and `default_networks` those networks alone: the weights that ship were trained on it.
Each set of the released code is there under its own name, too (`list_task_sets()`).
"""

from meta_training.tasks.base import (
    Instance,
    Task,
    list_task_sets,
    register_task_set,
    stack_instances,
    stack_parameters,
    task_set,
)
from meta_training.tasks.combinators import (
    SumTask,
    log_objective,
    rescale,
    sparse_gradient,
)
from meta_training.tasks.released import released_sets  # noqa: F401
from meta_training.tasks.small_networks import default_set  # noqa: F401

__all__ = [
    "Instance",
    "SumTask",
    "Task",
    "list_task_sets",
    "log_objective",
    "register_task_set",
    "rescale",
    "sparse_gradient",
    "stack_instances",
    "stack_parameters",
    "task_set",
]
