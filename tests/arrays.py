"""Comparisons of arrays and variables, and of lists and dicts of them."""

import collections.abc

import numpy as np


def assert_equal(found, wanted):
    """They are the same to the last bit."""
    _compare(np.testing.assert_array_equal, found, wanted)


def assert_close(found, wanted, rtol=0.0, atol=0.0, where=""):
    """No number is further from the wanted one than `atol`, or `rtol` of it, allows."""

    def compare(found, wanted, err_msg):
        np.testing.assert_allclose(found, wanted, rtol, atol, err_msg=err_msg)

    _compare(compare, found, wanted, where)


def _compare(function, found, wanted, where=""):
    if isinstance(wanted, collections.abc.Mapping):
        assert set(found) == set(wanted), where
        for name in wanted:
            _compare(function, found[name], wanted[name], f"{where} {name}")
    elif isinstance(wanted, list | tuple):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            _compare(function, one, other, f"{where} {index}")
    else:
        function(found, wanted, err_msg=where)
