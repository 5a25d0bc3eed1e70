"""Where the state starts."""

import numpy as np
import pytest
import tensorflow as tf

from tests.learned_optimizer.by_hand import perturbed_weights
from tests.learned_optimizer.rule.packed import Inputs, run


@pytest.mark.parametrize("learnable", [True, False])
def test_start_vectors_have_a_gradient_only_where_they_are_learned(learnable):
    weights = perturbed_weights(learnable_start=learnable)
    inputs = Inputs.make(steps=1)
    meta = {key: tf.constant(x) for key, x in weights.meta_parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(meta)
        state = run(inputs, weights, meta=meta).packed
        total = sum(
            tf.reduce_sum(tf.sin(getattr(state, name)))
            for name in ("hidden_state", "tensor_state", "global_state")
        )
    found = tape.gradient(total, meta, unconnected_gradients="zero")
    for level in ("parameter", "tensor", "global"):
        assert np.any(found[f"{level}_start"].numpy() != 0) == learnable, level
        # Everything else is trained either way.
        assert np.any(found[f"{level}_gates_kernel"].numpy() != 0), level
