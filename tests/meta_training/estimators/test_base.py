"""Estimators by name."""

import pytest

from meta_training.estimators import estimator, list_estimators, register_estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import HierarchicalRule
from meta_training.tasks.released.algebraic import Bowl


def test_estimators_go_by_name():
    assert list_estimators() == ["pes", "truncated"]
    with pytest.raises(ValueError, match="must be one of pes, truncated"):
        estimator("none")
    with pytest.raises(ValueError, match="must be new"):
        register_estimator("pes")(estimator("truncated"))
    batch, options = ProblemBatch([Bowl(5.0)], 2), UnrollConfig(max_steps=4)
    with pytest.raises(ValueError, match="must have no settings"):
        estimator("truncated")(batch, HierarchicalRule(), options, sigma=1.0)
