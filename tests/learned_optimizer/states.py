"""The saved state of an optimizer, for tests that compare states."""

import json

import numpy as np


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
