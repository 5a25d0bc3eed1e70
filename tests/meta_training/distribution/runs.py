"""Runs that the tests of strategies share, and what is asked of their results."""

import numpy as np

from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import read_csv
from meta_training.outer.training_config import preset
from tests.meta_training.outer.tiny_runs import TINY

TINY_IN_COHORTS = {**TINY, "estimator": "pes", "validate_every": 0, "outer_steps": 4}


def tiny(**changes):
    return preset("default", **{**TINY_IN_COHORTS, **changes})


def assert_whole_run(folder, outer_steps):
    """All outer steps, none twice, and meta-parameters that moved and are finite."""
    rows = read_csv(folder / "train.csv")
    assert [row["outer_step"] for row in rows] == list(range(outer_steps))
    weights = load_weights(folder / "weights.npz")
    assert weights.card["outer_step"] == outer_steps
    start = load_weights("bootstrap-v1").meta_parameters
    moved = weights.meta_parameters
    assert all(np.all(np.isfinite(value)) for value in moved.values())
    assert any(np.any(value != start[name]) for name, value in moved.items())
    return rows
