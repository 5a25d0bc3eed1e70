"""Which task sets exist: importing this module registers all that ship.

`released` is what the released command line turns on, `no_neural_networks` what the
abstract of the paper claims, `default` is `released` and small networks of many kinds,
and `default_networks` those networks alone: the weights that ship were trained on it.
Each set of the released code is there under its own name, too (`list_task_sets()`).
"""

from meta_training.tasks.released import released_sets  # noqa: F401
from meta_training.tasks.small_networks import default_set  # noqa: F401
from meta_training.tasks.task_sets import list_task_sets, register_task_set, task_set

__all__ = ["list_task_sets", "register_task_set", "task_set"]
