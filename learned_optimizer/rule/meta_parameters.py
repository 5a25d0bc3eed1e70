"""The meta-parameters: names, shapes and initial values of every learned array.

Meta-parameters are a plain dict `{name: array}`. Its names are those of
`specifications(config)`; beside each stands the name of the same array in the
released code, under which weights are stored on disk.

Any array may carry a leading axis of problems, `[problems, *shape]`: then each
problem is updated by meta-parameters of its own (an estimator that perturbs each
task by itself needs that). Either all arrays carry it or none.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from learned_optimizer.rule.config import Config

# Bias of the gates: the RNN starts by keeping its state (released code).
GATE_BIAS = 2.2
MEAN_SQUARE_DECAY_BIAS = 3.2
GRADIENT_DECAY_BIAS = 2.2
LEARNING_RATE_MOMENTUM_LOGIT = 3.2
STEP_LENGTH_OFFSET = -1.0


@dataclasses.dataclass(frozen=True)
class Specification:
    """One meta-parameter array.

    Attributes:
        name: Key in the dict of meta-parameters.
        released_name: Variable name in the released code, key in weight files.
        shape: Its shape, without a problem axis.
        draw: `(generator, shape) -> array`, the released initialiser.
    """

    name: str
    released_name: str
    shape: tuple[int, ...]
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

    def initial_value(self, generator: np.random.Generator) -> np.ndarray:
        """The array before meta-training, float32."""
        return self.draw(generator, self.shape).astype(np.float32)


def constant(value: float):
    """An initialiser: all elements are `value`."""
    return lambda generator, shape: np.full(shape, value)


def normal(scale: float, mean: float = 0.0):
    """An initialiser: normally distributed, of a mean and a standard deviation."""
    return lambda generator, shape: mean + scale * generator.standard_normal(shape)


def uniform(limit: float = 1.0):
    """An initialiser: uniform between `-limit` and `limit`."""
    return lambda generator, shape: generator.uniform(-limit, limit, shape)


def specifications(config: Config) -> list[Specification]:
    """The meta-parameter arrays that `config` has, in a fixed order.

    31 arrays of 8,349 numbers for the default config.
    """
    sizes = config.level_sizes
    hidden = sizes[0]
    timescales = config.gradient_timescales
    found = []

    def add(name, released_name, shape, draw):
        found.append(Specification(name, released_name, shape, draw))

    def add_readout(name, released_name, bias=None, scale=0.5):
        draw = normal(scale / math.sqrt(hidden))
        add(f"{name}_weights", f"{released_name}_weights", (hidden, 1), draw)
        if bias is not None:
            add(f"{name}_bias", f"{released_name}_bias", (1,), constant(bias))

    def add_affine(name, released_name, inputs, outputs, bias=0.0):
        kernel = normal(0.5 / math.sqrt(inputs))
        add(f"{name}_kernel", f"{released_name}/Matrix", (inputs, outputs), kernel)
        add(f"{name}_bias", f"{released_name}/Bias", (outputs,), constant(bias))

    def add_cell(name, released_name, inputs, size):
        cell = f"{released_name}/BiasGRUCell"
        add_affine(
            f"{name}_gates", f"{cell}/gates/Affine", inputs + size, 2 * size, GATE_BIAS
        )
        add_affine(f"{name}_candidate", f"{cell}/candidate/Affine", inputs + size, size)

    for level, size in enumerate(sizes):
        released_name = f"LOL/Level{level}_RNN/init_vector"
        add(f"{LEVELS[level]}_start", released_name, (1, size), uniform())
    directions = {"direction": "LOL/update"}
    if config.attention:
        directions["attention"] = "LOL/attention"
    for name, released_name in directions.items():
        if config.odd_direction:
            shape = (hidden, timescales)
            released_name = f"{released_name}_coefficients"
            add(f"{name}_coefficients", released_name, shape, constant(0.0))
        else:
            add_readout(name, released_name)
    if config.learnable_decay:
        add_readout("mean_square_decay", "LOL/scl_decay", MEAN_SQUARE_DECAY_BIAS)
    if config.learns_gradient_decay:
        add_readout("gradient_decay", "LOL/inp_decay", GRADIENT_DECAY_BIAS)
    if config.dynamic_output_scale:
        options = {"scale": 0.0} if config.zero_learning_rate_weights else {}
        add_readout("learning_rate", "LOL/learning_rate", 0.0, **options)

    per_tensor = "LOL/PerTensor"
    if config.levels >= 2:
        released_name = f"{per_tensor}/Layer0_RNN/Param/Affine"
        add_affine("tensor_to_parameter", released_name, sizes[1], 3 * hidden)
    if config.levels >= 3:
        released_name = f"{per_tensor}/Layer0_RNN/Global/Affine"
        add_affine("global_to_parameter", released_name, sizes[2], 3 * hidden)
    add_cell("parameter", f"{per_tensor}/Layer0_RNN", config.inputs, hidden)
    if config.levels >= 3:
        released_name = f"{per_tensor}/Layer1_RNN/Affine"
        add_affine("global_to_tensor", released_name, sizes[2], 3 * sizes[1])
    if config.horizon_input:
        released_name = f"{per_tensor}/Layer1_RNN/Horizon/Matrix"
        add("horizon_to_tensor", released_name, (1, 3 * sizes[1]), constant(0.0))
    if config.levels >= 2:
        # Without extra inputs the tensor RNN sees the hidden states alone.
        inputs = hidden + (config.inputs if config.extra_inputs else 0)
        add_cell("tensor", f"{per_tensor}/Layer1_RNN", inputs, sizes[1])
    if config.gradient_shortcut:
        shape = (timescales, 1)
        draw = normal(0.1 / math.sqrt(timescales), 1 / timescales)
        add("gradient_shortcut", f"{per_tensor}/GradsToDelta/Matrix", shape, draw)
        if config.attention:
            released_name = f"{per_tensor}/GradsToAttnDelta/Matrix"
            add("attention_shortcut", released_name, shape, draw)
    if config.dynamic_output_scale:
        name = "learning_rate_momentum_logit"
        add(name, f"{per_tensor}/{name}", (), constant(LEARNING_RATE_MOMENTUM_LOGIT))
        released_name = f"{per_tensor}/param_stepsize_offset"
        add("step_length_offset", released_name, (), constant(STEP_LENGTH_OFFSET))
    if config.levels >= 3:
        add_cell("global", "LOL/Layer2_RNN", sizes[1], sizes[2])
    return found


LEVELS = ("parameter", "tensor", "global")


def initial_meta_parameters(config: Config, seed=None) -> dict[str, np.ndarray]:
    """Fresh meta-parameters, drawn as the released code draws them.

    Attention starts equal to the direction (design of the released code). `seed` is
    anything that `numpy.random.default_rng` takes.
    """
    generator = np.random.default_rng(seed)
    values = {
        specification.name: specification.initial_value(generator)
        for specification in specifications(config)
    }
    if config.attention:
        if not config.odd_direction:
            values["attention_weights"] = values["direction_weights"].copy()
        if config.gradient_shortcut:
            values["attention_shortcut"] = values["gradient_shortcut"].copy()
    return values


def from_released_names(config: Config, arrays) -> dict[str, np.ndarray]:
    """Meta-parameters from arrays under the released variable names.

    Raises:
        ValueError: If an array is missing, of another shape, not finite, or
            not part of the architecture.
    """
    wanted = {spec.released_name: spec for spec in specifications(config)}
    missing = sorted(set(wanted) - set(arrays))
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise ValueError(
            "Meta-parameters must be exactly those of their config. "
            f"Missing: {missing}. Not part of it: {unknown}."
        )
    values = {}
    for released_name, specification in wanted.items():
        array = np.asarray(arrays[released_name])
        if array.shape != specification.shape:
            raise ValueError(
                f"Array {released_name!r} must have the shape {specification.shape} "
                f"of its config. Received: shape {array.shape}"
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(
                f"Array {released_name!r} must be of finite floats. "
                f"Received: dtype {array.dtype}, or a value that is not finite"
            )
        values[specification.name] = array.astype(np.float32)
    return values


def to_released_names(config: Config, meta_parameters) -> dict[str, np.ndarray]:
    """The same arrays under the released variable names, as NumPy arrays."""
    return {
        spec.released_name: np.asarray(meta_parameters[spec.name], np.float32)
        for spec in specifications(config)
    }


def with_more_inputs(meta_parameters, config: Config, wider: Config) -> dict:
    """Meta-parameters of a wider architecture, with zeros where they meet a new input.

    It has all that `config` has, and further inputs of the parameter RNN, which count
    for nothing, `odd_direction` or `horizon_input`, whose arrays start at 0.

    Raises:
        ValueError: If the two differ in anything else.
    """
    new = np.array([name not in config.input_names for name in wider.input_names])
    if wider.level_sizes != config.level_sizes or new.sum() != len(new) - config.inputs:
        raise ValueError(
            "The wider architecture must have the same levels and all inputs of the "
            f"other. Received: inputs {wider.input_names} and {config.input_names}, "
            f"levels {wider.level_sizes} and {config.level_sizes}"
        )
    found = {}
    for specification in specifications(wider):
        name = specification.name
        value = meta_parameters.get(name)
        if value is None and name.endswith(("_coefficients", "horizon_to_tensor")):
            value = np.zeros(specification.shape, np.float32)
        # The tensor RNN sees the hidden states of the parameters first.
        offset = config.level_sizes[0] if name.startswith("tensor_") else 0
        if value is not None and value.shape != specification.shape:
            first = np.arange(len(wider.input_names)) + offset
            kept = np.delete(np.arange(specification.shape[0]), first[new])
            wide = np.zeros(specification.shape, np.float32)
            if len(kept) == len(value):
                wide[kept] = value
                value = wide
        if value is None or value.shape != specification.shape:
            raise ValueError(
                "The wider architecture must have the same arrays. Received: "
                f"{name!r} of shape {specification.shape}, and "
                f"{None if value is None else value.shape}"
            )
        found[name] = np.array(value)
    return found
