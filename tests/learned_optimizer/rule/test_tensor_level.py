"""What a whole tensor agrees on."""

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.tensor_level import sum_log_learning_rates


def test_a_sum_over_a_long_tensor_keeps_its_digits():
    layout = Layout.from_row_lengths(tf.constant([500_000, 3]), 500_003)
    rates = np.full((1, 500_003, 1), -6.9078, np.float32)
    found = sum_log_learning_rates(rates, layout) / layout.tensor_elements
    np.testing.assert_allclose(found, -6.9078, rtol=2e-4)
    # One after another they would not.
    in_order = np.cumsum(rates.reshape(-1)[:-3], dtype=np.float32)[-1]
    assert abs(in_order / 500_000 + 6.9078) > 1e-2
