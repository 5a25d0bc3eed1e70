"""The named task sets, and how a new one is added."""

from collections.abc import Callable

from meta_training.registry import Registry
from meta_training.tasks.base import Task

_task_sets: Registry[Callable[[], list[Task]]] = Registry("a task set")


def register_task_set(name: str):
    """A decorator that adds a task set: a function that returns a list of tasks.

    Args:
        name: the name by which `task_set` and the command line know it.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[[], list[Task]]):
        _task_sets.add(name, function)
        return function

    return register


def task_set(name: str) -> list[Task]:
    """The tasks of a named set, in a fixed order.

    Raises:
        ValueError: no set has that name; the message lists those that exist.
    """
    return list(_task_sets[name]())


def list_task_sets() -> list[str]:
    """The names of all task sets, sorted."""
    return _task_sets.names()
