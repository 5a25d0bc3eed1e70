"""States of the rule and of an optimizer, for tests that compare them."""

import json

import numpy as np

from learned_optimizer.rule.update_rule import compute_step


def update(values, *arguments, **options):
    """The `Update` of packed values by a step; the rest as for `compute_step`."""
    return compute_step(*arguments, values=values, **options).applied_to(values)


def state_of(optimizer):
    """All that it saves, by name."""
    store = {}
    optimizer.save_own_variables(store)
    return store


def assert_equal_states(one, other):
    """Two states are the same to the last bit; names of variables may differ."""
    assert set(one) == set(other)
    for name in one:
        if name == "description":
            pair = [json.loads(bytes(state[name])) for state in (one, other)]
            for description in pair:
                description.pop("paths", None)
            assert pair[0] == pair[1]
        else:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
