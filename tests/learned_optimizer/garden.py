"""Optimizers out of Model Garden's factory, for the tests of the plugin.

Imports nothing of Model Garden by itself, so that the tests can say that it is absent.
"""

import pytest

from tests.conftest import installed

needs_model_garden = pytest.mark.skipif(
    not installed("official"),
    reason="TensorFlow Model Garden is not installed: pip install .[models]",
)
INITIAL_LEARNING_RATE = 0.05


def optimization_config(learning_rate=1.0, **entries):
    from official.modeling import optimization

    import learned_optimizer.model_garden  # noqa: F401

    rate = {"type": "constant", "constant": {"learning_rate": learning_rate}}
    arguments = entries.pop("hierarchical_rnn", {})
    return optimization.OptimizationConfig(
        {
            "optimizer": {"type": "hierarchical_rnn", "hierarchical_rnn": arguments},
            "learning_rate": rate,
            **entries,
        }
    )


def build(config, **options):
    from official.modeling import optimization

    factory = optimization.OptimizerFactory(config)
    return factory.build_optimizer(factory.build_learning_rate(), **options)


def optimizer_of(**arguments):
    arguments = {"initial_learning_rate": INITIAL_LEARNING_RATE} | arguments
    return build(optimization_config(hierarchical_rnn=arguments))
