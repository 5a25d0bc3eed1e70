"""What a step of an optimizer costs on this device: time, memory, and the least time.

The least time is that of moving what must be moved: parameters and state are read and
written, gradients are read. The bandwidth is that of a copy on the device.
"""

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np

from imagenet.models import MODELS, build_model
from learned_optimizer.benchmark import vit_b16_shapes
from learned_optimizer.utils.measuring import median_seconds

REPETITIONS = 20
_COPIED_BYTES = 1 << 30


def copy_bandwidth() -> float:
    """Gigabytes a second that a copy on the device reads and writes."""
    size = _COPIED_BYTES // (16 if jax.default_backend() == "cpu" else 1)
    source = jnp.zeros(size // 4, jnp.float32)
    # Not the identity, which would copy nothing.
    copy = jax.jit(lambda x: x + 1.0)
    return 2 * source.nbytes / _median(lambda: copy(source)) / 1e9


def shapes_of(network: str) -> list[tuple[int, ...]]:
    """The shapes of the variables of one of `MODELS` or `vit_b16`, 1,000 classes."""
    if network in MODELS:
        variables = build_model(network, 1000).trainable_variables
        return [tuple(variable.shape) for variable in variables]
    return vit_b16_shapes()


def step_cost(
    network: str, name: str, optimizer: keras.optimizers.Optimizer, bandwidth: float
) -> dict:
    """Measures a step on variables of the shapes of a network.

    Returns:
        A row of `step.csv`: beside the times of a step, the bytes that the compiled
        step needs beside its arguments, those of the optimizer's variables, those that
        must be read and written, and the bandwidth in gigabytes a second.
    """
    random = np.random.default_rng(0)
    variables = [
        keras.Variable(0.02 * random.standard_normal(shape, np.float32))
        for shape in shapes_of(network)
    ]
    optimizer.build(variables)
    gradients = [
        jax.device_put(1e-3 * random.standard_normal(v.shape, np.float32))
        for v in variables
    ]
    # Copies, since what is donated is gone.
    values = [
        [jnp.array(variable.value, copy=True) for variable in some]
        for some in (optimizer.variables, variables)
    ]

    def advance(state, trainable, gradients):
        trainable, state = optimizer.stateless_apply(state, gradients, trainable)
        return state, trainable

    step = jax.jit(advance, donate_argnums=(0, 1)).lower(*values, gradients).compile()
    state_bytes, parameter_bytes = (sum(v.nbytes for v in some) for some in values)
    moved_bytes = 2 * state_bytes + 3 * parameter_bytes

    def run():
        nonlocal values
        values = step(*values, gradients)
        return values

    return {
        "network": network,
        "optimizer": name,
        "parameters": sum(math.prod(variable.shape) for variable in variables),
        "milliseconds": 1e3 * _median(run),
        "least_milliseconds": moved_bytes / bandwidth / 1e6,
        "temporary_bytes": step.memory_analysis().temp_size_in_bytes,
        "state_bytes": state_bytes,
        "moved_bytes": moved_bytes,
        "gigabytes_a_second": bandwidth,
    }


def _median(run):
    return median_seconds(lambda: jax.block_until_ready(run()), REPETITIONS)
