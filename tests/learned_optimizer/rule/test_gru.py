"""The recurrent cell against that in plain NumPy."""

import numpy as np
import pytest

from learned_optimizer.rule.gru import GRUKernels, affine, gru_step
from tests.learned_optimizer.rule import numpy_rule

ROWS, INPUTS, SIZE = 3, 4, 5


@pytest.mark.parametrize("a_row", [False, True], ids=["shared", "kernels of a row"])
@pytest.mark.parametrize("block", [(), (2,)], ids=["vectors", "blocks"])
def test_each_row_takes_a_step(a_row, block):
    generator = np.random.default_rng(0)

    def draw(*shape):
        return np.float32(generator.normal(size=shape))

    leading = (ROWS,) * a_row
    gates = draw(*leading, INPUTS + SIZE, 2 * SIZE)
    candidate = draw(*leading, INPUTS + SIZE, SIZE)
    bias = draw(*leading, 3 * SIZE)
    x, h = draw(INPUTS, ROWS, *block), draw(SIZE, ROWS, *block)
    of_rows = bias.T.reshape(3 * SIZE, -1, *(1,) * len(block))
    kernels = GRUKernels(gates, candidate)
    # The part of the state may have been computed before, the gates fenced off.
    from_state = affine(gates[..., INPUTS:, :], np.zeros(2 * SIZE, np.float32), h)
    for options in ({}, dict(from_state=from_state, fence=lambda gate: gate())):
        found = np.array(gru_step(kernels, x, h, of_rows, **options))
        for row in range(ROWS):
            at = (row,) if a_row else ()
            w = {
                "_gates_kernel": gates[at],
                "_candidate_kernel": candidate[at],
                "_gates_bias": bias[at][: 2 * SIZE],
                "_candidate_bias": bias[at][2 * SIZE :],
            }
            w = numpy_rule.float64(w)
            wanted = numpy_rule.cell(w, "", x[:, row].T, h[:, row].T)
            np.testing.assert_allclose(found[:, row].T, wanted, rtol=1e-5, atol=1e-6)
