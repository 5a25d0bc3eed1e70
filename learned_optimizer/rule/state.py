"""The state of the optimizer: one table, from which everything about it follows.

Shapes, starts, what is saved and shown, the form it has in a SavedModel and how
meta-training cuts it by problems are read from `FIELDS`.
"""

import collections
import dataclasses
from collections.abc import Callable

from keras import ops

from learned_optimizer.rule.config import MIN_LOG_LEARNING_RATE, Config
from learned_optimizer.rule.gru import feature_first
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.levels import Levels


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the state.

    Attributes:
        level: Whose it is: "parameter" (packed as `[width, blocks, block_size]`),
            "tensor" (`[width, tensors]`) or "problem" (`[width, problems]`).
        width: `(config) -> int`, its number of features; 0: the architecture has no
            such field.
        start: What it is before the first step: the name of a meta-parameter or of an
            argument of `initial_state`; None: 0.
        is_number: Whether it is a single number, which has no axis of features in a
            SavedModel and in `slots`.
        has_axis: Whether its packed array has an axis of features.
    """

    level: str
    width: Callable[[Config], int]
    start: str | None = None
    is_number: bool = False
    has_axis: bool = True


def _level(index):
    return lambda config: (*config.level_sizes, 0, 0)[index]


def _if(switch):
    return lambda config: int(bool(getattr(config, switch)))


FIELDS = {
    # Hidden states of the parameters' RNN.
    "hidden_state": Field("parameter", _level(0), "parameter_start"),
    # Running averages of the gradient and of its square, a timescale each.
    "gradient_averages": Field("parameter", lambda config: config.gradient_timescales),
    "mean_squares": Field("parameter", lambda config: config.gradient_timescales),
    # Running average of the log learning rate.
    "log_learning_rate": Field(
        "parameter", _if("dynamic_output_scale"), "log_learning_rate", is_number=True
    ),
    # Hidden states of the RNNs of tensors and problems.
    "tensor_state": Field("tensor", _level(1), "tensor_start"),
    "global_state": Field("problem", _level(2), "global_start"),
    # 0 until the first step of a tensor and 1 from then on.
    "started": Field("tensor", lambda config: 1, is_number=True, has_axis=False),
    # Log of the size of the tensor's first parameters, for the nominal learning rate.
    "log_size": Field("tensor", _if("nominal"), "log_size", is_number=True),
    # Number of steps of the tensor, for the same.
    "steps_taken": Field("tensor", _if("nominal"), is_number=True),
    # Running average of the tensor's mean squared gradient, and its largest so far.
    "gradient_size": Field("tensor", _if("gradient_decline"), is_number=True),
    "largest_gradient_size": Field("tensor", _if("gradient_decline"), is_number=True),
}
PARAMETER_FIELDS = tuple(n for n, field in FIELDS.items() if field.level == "parameter")

State = collections.namedtuple("State", FIELDS, defaults=[None] * len(FIELDS))
State.__doc__ = """What the optimizer remembers: the fields of `FIELDS`, packed.

Those that an architecture does not have are None or of size 0. Where a layout has
several shards, the fields of parameters are lists, an array a shard.
"""


def fields_of(config: Config) -> dict[str, Field]:
    """The fields that the state of an architecture has."""
    return {name: field for name, field in FIELDS.items() if field.width(config)}


def state_shapes(layout: Layout, config: Config) -> dict[str, tuple]:
    """The packed shape of each field; absent ones have a size of 0."""
    rows = {
        "parameter": (layout.num_blocks, layout.block_size),
        "tensor": (layout.num_tensors,),
        "problem": (layout.num_problems,),
    }
    return {
        name: (field.width(config),) * field.has_axis + rows[field.level]
        for name, field in FIELDS.items()
    }


def initial_field(
    name, layout, meta_parameters, config, log_learning_rate, log_size=0.0
):
    """One field of the state before the first step, see `initial_state`."""
    shape = state_shapes(layout, config)[name]
    field = FIELDS[name]
    if field.start is None or not field.width(config):
        return ops.zeros(shape, "float32")
    if field.start == "log_size":
        return ops.broadcast_to(ops.cast(log_size, "float32"), shape)
    if field.start == "log_learning_rate":
        rates = ops.clip(
            ops.cast(log_learning_rate, "float32"),
            MIN_LOG_LEARNING_RATE,
            config.max_log_learning_rate,
        )
        return ops.broadcast_to(rates, shape)
    start = Levels(meta_parameters, layout).get(field.start, field.level)
    start = feature_first(ops.convert_to_tensor(start)[..., 0, :], len(shape))
    if not config.learnable_start:
        # The released code draws them as constants: no gradient trains them.
        start = ops.stop_gradient(start)
    return ops.broadcast_to(start, shape)


def initial_state(
    layout: Layout, meta_parameters, config: Config, log_learning_rate, log_size=0.0
) -> State:
    """The state before the first step.

    `log_learning_rate` is the natural logarithm of the initial learning rate: a number,
    or an array that broadcasts against `[1, blocks, block_size]`. It is clipped to
    [-33, `config.max_log_learning_rate`]. `log_size` is the log of the size of each
    tensor's parameters, from `nominal_rate.log_sizes`: a number, or `[1, tensors]`.
    Only a nominal learning rate needs it, and only where `compute_step` is not given
    `mean_squares`.
    """
    arguments = (layout, meta_parameters, config, log_learning_rate, log_size)
    return State(*(initial_field(name, *arguments) for name in FIELDS))
