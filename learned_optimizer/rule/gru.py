"""The recurrent cell of all three levels: a GRU with an injected bias.

Unlike Keras's default GRU, the reset gate acts on the state before the matrix product.

Arrays carry their features in front: inputs `[inputs, rows, ...]`, states
`[size, rows, ...]`, where a row is a block of parameters, a tensor or a problem.
"""

from typing import Any, NamedTuple

from keras import ops


class GRUKernels(NamedTuple):
    """Kernels of a cell, shared by all rows or with a leading axis of rows.

    Attributes:
        gates: `[inputs + size, 2 * size]`, columns (reset, update).
        candidate: `[inputs + size, size]`.
    """

    gates: Any
    candidate: Any


def sigmoid(x):
    """The logistic function by tanh, which XLA vectorises better than exp."""
    return 0.5 + 0.5 * ops.tanh(0.5 * x)


def linear(kernel, x):
    """`kernel^T x` over the leading axis of features, `[outputs, rows, ...]`.

    `kernel` is `[inputs, outputs]` or `[rows, inputs, outputs]`, `x` is `[inputs, rows,
    ...]`.
    """
    if tuple(kernel.shape[1:]) == (1,):
        # XLA's loop over such a sum takes a quarter of the time of its product.
        weights = ops.reshape(kernel, (-1,) + (1,) * (len(x.shape) - 1))
        return ops.sum(weights * x, axis=0, keepdims=True)
    if len(kernel.shape) == 2:
        return ops.tensordot(kernel, x, axes=[[0], [0]])
    if len(x.shape) == 2:
        return ops.einsum("rio,ir->or", kernel, x)
    return ops.einsum("rio,irb->orb", kernel, x)


def affine(kernel, bias, x):
    """`kernel^T x + bias`, shapes as in `linear`; bias `[outputs]` or a row each."""
    return linear(kernel, x) + feature_first(bias, len(x.shape))


def feature_first(bias, rank: int):
    """`[outputs]` or `[rows, outputs]` as `[outputs, 1 or rows, 1...]` of `rank`."""
    if len(bias.shape) == 1:
        return ops.reshape(bias, (-1,) + (1,) * (rank - 1))
    bias = ops.transpose(bias)
    return bias if rank == 2 else bias[:, :, None]


def gru_step(kernels: GRUKernels, inputs, state, bias, from_state=None, fence=None):
    """One step of the cell. Equation 6.

    `(r, u) = sigmoid([x, h] W + b)`, `c = tanh([x, r h] W + b)`,
    `h' = u h + (1 - u) c`.

    `inputs` are `[inputs, rows, ...]`, the old and the new state `[size, rows, ...]`.
    `bias`, the cell's own and what other levels inject, broadcasts against `[3 * size,
    rows, ...]` in the order (reset, update, candidate). `from_state`, `[2 * size, rows,
    ...]`, is what the state adds to the gates, where the caller has computed it
    together with something else. `fence` calls the function that computes the gates;
    None: it is called as it is.
    """
    size = state.shape[0]
    split = inputs.shape[0]

    def gate():
        # The inputs enter gates and candidate alike, so one product serves both.
        from_inputs = linear(
            ops.concatenate([kernel[..., :split, :] for kernel in kernels], axis=-1),
            inputs,
        )
        to_gates = from_state
        if to_gates is None:
            to_gates = linear(kernels.gates[..., split:, :], state)
        # Sigmoids but for a factor and a term, which cost a pass of their own here.
        gates = ops.tanh(0.5 * (from_inputs[: 2 * size] + to_gates + bias[: 2 * size]))
        return (0.5 + 0.5 * gates[:size]) * state, gates, from_inputs

    reset_state, gates, from_inputs = fence(gate) if fence else gate()
    candidate = ops.tanh(
        from_inputs[2 * size :]
        + bias[2 * size :]
        + linear(kernels.candidate[..., split:, :], reset_state)
    )
    return candidate + (0.5 + 0.5 * gates[size:]) * (state - candidate)
