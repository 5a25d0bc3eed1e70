"""Exports that the tests of this folder share."""

import functools
import os

import pytest
import tensorflow as tf

from learned_optimizer.interop.saved_model_files import export_weights
from tests.learned_optimizer.exported import weights_of


@pytest.fixture(scope="package")
def export(tmp_path_factory):
    """A function from the name of weights to the folder of their SavedModel."""
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def exported(name):
        return export_weights(weights_of(name), folder / name.replace(", ", "_"))

    return exported


@pytest.fixture(scope="package")
def signatures(export):
    """A function from the name of weights to the loaded signatures."""

    @functools.cache
    def loaded(name):
        model = tf.saved_model.load(os.fspath(export(name)))
        # The signatures alone do not keep the variables alive.
        return {"model": model, **model.signatures}

    return loaded
