"""Which task sets exist: importing this module registers all that ship.

`released`, `no_neural_networks` and `default` are the sets of the shipped weights;
each set of the released code is there under its own name (`list_task_sets()`).
"""

from meta_training.tasks import default_set, released_sets  # noqa: F401
from meta_training.tasks.registry import list_task_sets, register_task_set, task_set

__all__ = ["list_task_sets", "register_task_set", "task_set"]
