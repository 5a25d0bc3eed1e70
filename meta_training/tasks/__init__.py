"""The tasks of meta-training: one file a family, `ensemble` says which sets exist."""

from meta_training.tasks.base import Instance, Task, stack_instances, stack_parameters
from meta_training.tasks.combinators import (
    SumTask,
    log_objective,
    rescale,
    sparse_gradient,
)
from meta_training.tasks.ensemble import list_task_sets, register_task_set, task_set

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
