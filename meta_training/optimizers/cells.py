"""Recurrent cells of the coordinate-wise RNN, in packed arrays.

A cell maps `[inputs, blocks, block_size]` and its state, `[state, blocks, block_size]`,
to an output and a new state. Its kernels and biases are shared by all blocks, or have a
leading axis of blocks (`learned_optimizer.rule.gru`).
"""

import abc
import math

import tensorflow as tf

from learned_optimizer.rule.gru import (
    GRUKernels,
    feature_first,
    gru_step,
    linear,
    sigmoid,
)
from learned_optimizer.rule.meta_parameters import Specification, constant, uniform


class Cell(abc.ABC):
    """One layer of a recurrent network.

    Attributes:
        state_size: Numbers of state per parameter.
        size: Numbers of output per parameter.
    """

    state_size: int

    def __init__(self, number: int, inputs: int, size: int):
        """The cell of layer `number`, which is a part of the names of its arrays."""
        self._name = f"cell_{number}"
        self._released = f"LOL/multi_rnn_cell/cell_{number}"
        self._inputs = inputs
        self.size = size

    def _affine(self, name, released_name, parts, bias=0.0) -> list[Specification]:
        """A kernel, uniform of Glorot's width, and a bias, for `[inputs, state]`."""
        shape = (self._inputs + self.size, parts * self.size)
        name = f"{self._name}_{name}".removesuffix("_")
        released_name = f"{self._released}/{released_name}"
        draw = uniform(math.sqrt(6.0 / sum(shape)))
        return [
            Specification(f"{name}_kernel", f"{released_name}/kernel", shape, draw),
            Specification(
                f"{name}_bias", f"{released_name}/bias", shape[1:], constant(bias)
            ),
        ]

    @abc.abstractmethod
    def specifications(self) -> list[Specification]:
        """Its meta-parameter arrays."""

    @abc.abstractmethod
    def step(self, arrays, inputs, state):
        """One step.

        Args:
            arrays: `(name) -> array`, its meta-parameters for the blocks.
            inputs: `[inputs, blocks, block_size]`.
            state: `[state_size, blocks, block_size]`.

        Returns:
            `[size, blocks, block_size]` output, and the new state.
        """


class GRUCell(Cell):
    """The gated recurrent unit of TensorFlow 1, the reset gate before the product.

    `(r, u) = sigmoid([x, h] W + b)`, `c = tanh([x, r h] W + b)`, and
    `h' = u h + (1 - u) c` is output and state. Gate biases start at 1, as there.
    """

    @property
    def state_size(self):
        return self.size

    def specifications(self):
        return self._affine("gates", "gru_cell/gates", 2, 1.0) + self._affine(
            "candidate", "gru_cell/candidate", 1
        )

    def step(self, arrays, inputs, state):
        kernels = GRUKernels(
            arrays(f"{self._name}_gates_kernel"),
            arrays(f"{self._name}_candidate_kernel"),
        )
        bias = tf.concat(
            [
                arrays(f"{self._name}_gates_bias"),
                arrays(f"{self._name}_candidate_bias"),
            ],
            axis=-1,
        )
        state = gru_step(kernels, inputs, state, feature_first(bias, 3))
        return state, state


class LSTMCell(Cell):
    """The basic long short-term memory of TensorFlow 1.

    `(i, j, f, o) = [x, h] W + b`, `c' = sigmoid(f + 1) c + sigmoid(i) tanh(j)`,
    `h' = sigmoid(o) tanh(c')`. The state is `c` followed by `h`, which is the output.
    """

    @property
    def state_size(self):
        return 2 * self.size

    def specifications(self):
        return self._affine("", "basic_lstm_cell", 4)

    def step(self, arrays, inputs, state):
        carried, output = state[: self.size], state[self.size :]
        kernel = arrays(f"{self._name}_kernel")
        bias = feature_first(arrays(f"{self._name}_bias"), 3)
        sums = bias + linear(kernel, tf.concat([inputs, output], axis=0))
        into, candidate, forget, out = tf.split(sums, 4, axis=0)
        carried = carried * sigmoid(forget + 1.0) + sigmoid(into) * tf.tanh(candidate)
        output = sigmoid(out) * tf.tanh(carried)
        return output, tf.concat([carried, output], axis=0)


CELLS = {"gru": GRUCell, "lstm": LSTMCell}
