"""How many classes a label's own is behind."""

import numpy as np

from imagenet.comparison.ranking import ranks_of


def test_what_is_not_surely_below_the_label_counts_against_it():
    """Ties, and what a diverged network says."""
    logits = np.array([[3, 1, 2], [1, 1, 1], [np.nan] * 3, [1, np.nan, 0]])
    assert ranks_of(np.array([2, 0, 0, 0]), logits).tolist() == [1, 2, 2, 1]
