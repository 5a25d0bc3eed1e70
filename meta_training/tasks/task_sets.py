"""The named task sets, and how a new one is added."""

from collections.abc import Callable

from meta_training.registry import Registry
from meta_training.tasks.base import Task

_task_sets: Registry[Callable[[], list[Task]]] = Registry("a task set")


# A set is a function that returns a list of tasks.
register_task_set = _task_sets.register
list_task_sets = _task_sets.names


def task_set(name: str) -> list[Task]:
    """The tasks of a named set, in a fixed order.

    Raises:
        ValueError: No set has that name; the message lists those that exist.
    """
    return list(_task_sets.get(name)())
