"""Fixtures that the tests of experiments share."""

import pytest

# TensorFlow is imported by whoever asks for these: other tests choose a backend first.


@pytest.fixture(scope="module")
def weights():
    """Those that experiments judge."""
    from learned_optimizer import load_weights
    from meta_training.optimizers import as_trained

    return as_trained(load_weights("default"))


@pytest.fixture
def request_of(weights):
    """Makes what is asked of an experiment."""
    from meta_training.experiments.runner import Request

    def make(budget="small", seeds=None):
        return Request(budget, seeds, weights)

    return make
