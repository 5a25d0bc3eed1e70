"""The figures of a run on a device."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed: `make backends`")


def test_what_is_not_surely_below_the_label_counts_against_it():
    """Ties, and what a diverged network says."""
    from imagenet.accelerator.training import ranks_of

    logits = np.array([[3, 1, 2], [1, 1, 1], [np.nan] * 3, [1, np.nan, 0]])
    assert ranks_of(np.array([2, 0, 0, 0]), logits).tolist() == [1, 2, 2, 1]
