"""How many classes a label's own is behind. NumPy alone."""

import numpy as np


def ranks_of(labels, logits) -> np.ndarray:
    """How many other classes are not surely below the label's.

    Ties count against the label, and so does what is not a number.

    Args:
        labels: `[images]` integers.
        logits: `[images, classes]`.

    Returns:
        `[images]`, 0 where the label has the highest logit.
    """
    of_labels = np.take_along_axis(logits, labels[:, None], axis=1)
    # The label's own class is not below itself.
    return (~(logits < of_labels)).sum(axis=1) - 1
