"""The coordinate-wise RNN: a small recurrent network for each parameter.

Andrychowicz et al., *Learning to learn by gradient descent by gradient descent*, 2016,
in the version of the released code (`coordinatewise_rnn.py`): gradients are scaled by
their running mean square, the network changes the learning rates, and its initial state
is learned. All parameters share the weights of the network.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from learned_optimizer.rule.config import MIN_LOG_LEARNING_RATE
from learned_optimizer.rule.gru import GRUKernels, feature_first, gru_step
from learned_optimizer.rule.levels import Levels
from learned_optimizer.rule.meta_parameters import (
    Specification,
    constant,
    normal,
    uniform,
)
from learned_optimizer.rule.update_rule import Step
from learned_optimizer.utils.flags import setting
from meta_training.optimizers.base import TrainableOptimizer, register_optimizer

# The released initial values: of the decay of mean squares, and of the readouts, whose
# standard deviation is this over the root of the inputs.
DECAY_BIAS = 2.2
READOUT_SCALE = 0.5


class CoordinatewiseState(NamedTuple):
    """The state of each parameter.

    Attributes:
        hidden_state: `[sum of cell_sizes, blocks, block_size]`, concatenated cells.
        mean_squares: `[1, blocks, block_size]`, of the gradient.
        decay: `[1, blocks, block_size]`, their decay in the next step.
        log_learning_rate: `[1, blocks, block_size]`.
    """

    hidden_state: Any
    mean_squares: Any
    decay: Any
    log_learning_rate: Any


@register_optimizer
@dataclasses.dataclass(frozen=True)
class CoordinatewiseRNN(TrainableOptimizer):
    r"""The coordinate-wise RNN.

    For a gradient g, with the decay $\beta$ and the learning rate $\eta$ after the last
    step: $\lambda \leftarrow (1 - \beta)(g^2 + 10^{-12}) + \beta \lambda$; the
    input is $\mathrm{asinh}(g / \sqrt{\lambda + 10^{-16}})$; of the network's output h,
    $\beta \leftarrow \sigma(h \cdot w_\beta + b_\beta)$, $\eta \leftarrow 2 \sigma(h
    \cdot w_\eta + b_\eta) \eta$, and the step is $\eta\, h \cdot w$. Mean squares and
    decays start at 1, so the first gradient is not scaled.

    The cells are the gated recurrent units of TensorFlow 1, the reset gate before the
    product; gate biases start at 1, as there. The released class cannot be built with
    them, its default: it expects a pair of state sizes from each cell. Learning rates
    are stored as logarithms, between -33 and `max_log_learning_rate`: the product of
    many factors in the released code may overflow.
    """

    cell_sizes: tuple[int, ...] = setting(
        (20, 20), "Outputs of each layer; as the released flags.", at_least=1
    )
    cell: str = setting("gru", "Which the cards of weights name.", choices=("gru",))
    learnable_decay: bool = setting(
        True, "Whether the network sets the decay; else sigmoid(2.2) after step 1."
    )
    dynamic_output_scale: bool = setting(
        True, "Whether the network changes the learning rates."
    )
    zero_learning_rate_weights: bool = setting(
        True,
        "Whether the weights for that start at 0, as by the released flags.",
    )
    max_log_learning_rate: float = setting(
        33.0, "Of the learning rates.", above=MIN_LOG_LEARNING_RATE, at_most=33
    )

    name: ClassVar[str] = "coordinatewise_rnn"
    state_type: ClassVar[type] = CoordinatewiseState
    state_levels: ClassVar[Mapping[str, str]] = dict.fromkeys(
        CoordinatewiseState._fields, "parameter"
    )

    def __post_init__(self):
        # JSON has no tuples.
        object.__setattr__(self, "cell_sizes", tuple(self.cell_sizes))
        super().__post_init__()
        if not self.cell_sizes:
            raise ValueError("cell_sizes must be one or more. Received: none")

    def specifications(self):
        outputs = self.cell_sizes[-1]
        shape, weights = (outputs, 1), normal(READOUT_SCALE / math.sqrt(outputs))
        start_shape = (1, sum(self.cell_sizes))
        found = [
            Specification("start", "LOL/init_vector", start_shape, uniform()),
            Specification("direction_weights", "LOL/update_weights", shape, weights),
        ]
        readouts = {}
        if self.learnable_decay:
            readouts["decay"] = (weights, DECAY_BIAS)
        if self.dynamic_output_scale:
            is_zero = self.zero_learning_rate_weights
            readouts["learning_rate"] = (normal(0.0) if is_zero else weights, 0.0)
        for name, (draw, bias) in readouts.items():
            name = f"{name}_weights"
            found.append(Specification(name, f"LOL/{name}", shape, draw))
            name = name.replace("weights", "bias")
            found.append(Specification(name, f"LOL/{name}", (1,), constant(bias)))
        sizes = itertools.pairwise((1, *self.cell_sizes))
        for number, (inputs, size) in enumerate(sizes):
            for part, width, bias in (("gates", 2, 1.0), ("candidate", 1, 0.0)):
                shape = (inputs + size, width * size)
                name = f"cell_{number}_{part}"
                released = f"LOL/multi_rnn_cell/cell_{number}/gru_cell/{part}"
                draw = uniform(math.sqrt(6.0 / sum(shape)))
                found += [
                    Specification(f"{name}_kernel", f"{released}/kernel", shape, draw),
                    Specification(
                        f"{name}_bias", f"{released}/bias", shape[1:], constant(bias)
                    ),
                ]
        return found

    def state_shapes(self, layout):
        shapes = super().state_shapes(layout)
        hidden = (sum(self.cell_sizes), *shapes["hidden_state"][1:])
        return {**shapes, "hidden_state": hidden}

    def initial_state(self, layout, meta_parameters, log_learning_rate, values):
        shapes = self.state_shapes(layout)
        start = self.levels(meta_parameters, layout).get("start", "parameter")
        start = tf.convert_to_tensor(start)[..., 0, :]
        rates = tf.clip_by_value(
            tf.cast(log_learning_rate, tf.float32),
            MIN_LOG_LEARNING_RATE,
            self.max_log_learning_rate,
        )
        return CoordinatewiseState(
            tf.broadcast_to(feature_first(start, 3), shapes["hidden_state"]),
            tf.ones(shapes["mean_squares"]),
            tf.ones(shapes["decay"]),
            tf.broadcast_to(rates, shapes["log_learning_rate"]),
        )

    def compute_step(self, gradients, state, layout, meta_parameters, active=None):
        levels = self.levels(meta_parameters, layout)
        if layout.blocks_per_chunk is None or levels.per_problem:
            step, new_state = self._step(levels, gradients, state)
        else:
            step, new_state = self._step_by_chunks(levels, gradients, state, layout)
        # The network has an output for the padding, too.
        step = Step(step * layout.mask(), None, new_state)
        return self.held(step, state, layout, active)

    def _step(self, levels: Levels, gradients, state):
        """The step and the new state of some blocks, or of all."""

        def array(name):
            return levels.get(name, "parameter")

        squares = tf.square(gradients)[None] + 1e-12
        mean_squares = (1.0 - state.decay) * squares + state.decay * state.mean_squares
        output = tf.asinh(gradients[None] / tf.sqrt(mean_squares + 1e-16))
        hidden = tf.split(state.hidden_state, list(self.cell_sizes))
        for number, carried in enumerate(hidden):
            parts = [f"cell_{number}_{part}" for part in ("gates", "candidate")]
            kernels = GRUKernels(*(array(f"{part}_kernel") for part in parts))
            bias = tf.concat([array(f"{part}_bias") for part in parts], axis=-1)
            output = gru_step(kernels, output, carried, feature_first(bias, 3))
            hidden[number] = output
        if self.learnable_decay:
            decay = tf.sigmoid(levels.readout("decay", output))
        else:
            decay = tf.fill(tf.shape(state.decay), tf.sigmoid(DECAY_BIAS))
        log_rates = state.log_learning_rate
        if self.dynamic_output_scale:
            change = tf.math.log_sigmoid(levels.readout("learning_rate", output))
            change += math.log(2.0)
            log_rates = tf.clip_by_value(
                log_rates + change, MIN_LOG_LEARNING_RATE, self.max_log_learning_rate
            )
        direction = levels.readout("direction", output)
        new_state = CoordinatewiseState(
            tf.concat(hidden, axis=0), mean_squares, decay, log_rates
        )
        return (tf.exp(log_rates) * direction)[0], new_state

    def _step_by_chunks(self, levels, gradients, state, layout):
        """The same in chunks of blocks, to need less memory."""

        def chunked(array):
            features = array.shape[0]
            shape = [features, -1, layout.blocks_per_chunk, layout.block_size]
            return tf.transpose(tf.reshape(array, shape), [1, 0, 2, 3])

        def whole(array):
            features = array.shape[1]
            array = tf.transpose(array, [1, 0, 2, 3])
            return tf.reshape(array, [features, -1, layout.block_size])

        def step_of_chunk(chunk):
            gradients, *fields = chunk
            own_state = CoordinatewiseState(*fields)
            step, new_state = self._step(levels, gradients[0], own_state)
            return (step[None], *new_state)

        steps, *fields = tf.map_fn(
            step_of_chunk,
            tuple(chunked(array) for array in (gradients[None], *state)),
            parallel_iterations=1,
        )
        return whole(steps)[0], CoordinatewiseState(*map(whole, fields))

    def log_learning_rates(self, state, layout, meta_parameters):
        return state.log_learning_rate[0]
