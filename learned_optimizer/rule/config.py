"""The architecture of the learned optimizer: every switch of the released code.

A `Config` says which network the meta-parameters belong to; it travels with
the weights (in their card) and never with the user. The defaults are the
released ones, but for the global RNN, which sees the mean of all tensors as the
released code's own comment has it (the code itself passes on the last tensor
alone).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from learned_optimizer.rule.nominal_rate import NominalRate

# What the released code fixes when a decay is not learned.
FIXED_MEAN_SQUARE_DECAY = 0.93
FIXED_GRADIENT_DECAY = 0.89
MIN_LOG_LEARNING_RATE = -33.0

# The released command line's names of the same switches: cards and golden data
# written with them are read as they are.
RELEASED_NAMES = {
    "num_gradient_scales": "gradient_timescales",
    "use_relative_lr": "relative_learning_rate",
    "use_log_means_squared": "log_mean_squares",
    "use_grad_products": "gradient_products",
    "use_gradient_shortcut": "gradient_shortcut",
    "use_attention": "attention",
    "use_extreme_indicator": "extreme_indicator",
    "use_lr_shortcut": "learning_rate_shortcut",
    "use_multiple_scale_decays": "multiple_scale_decays",
    "learnable_inp_decay": "learnable_input_decay",
    "learnable_rnn_init": "learnable_start",
    "zero_init_lr_weights": "zero_learning_rate_weights",
    "max_log_lr": "max_log_learning_rate",
}

# Switches that came after `default-v2`. They are written where they are on, so that the
# same architecture has the same config, whenever it is written.
LATER_SWITCHES = "odd_direction", "absolute_inputs", "gradient_decline", "horizon_input"


@dataclasses.dataclass(frozen=True)
class Config:
    """Which hierarchical RNN a set of meta-parameters belongs to.

    Attributes:
        level_sizes: One to three positive hidden sizes: of the RNN of each
            parameter, of each tensor, and of the whole problem.
        gradient_timescales: Number S of momentum timescales, 1 or more.
        attention: Take the gradient at an attended location of its own, as the
            released code does when asked to (its default is off).
        relative_learning_rate: Feed the log learning rate relative to its mean.
        learning_rate_mean: `"problem"` or `"tensor"`: over what that mean is.
        log_mean_squares: Feed the log mean squares relative to their mean over
            timescales.
        gradient_products: Feed products of scaled gradients of neighbouring
            timescales.
        gradient_shortcut: Add a learned combination of the scaled gradients to
            the direction.
        learning_rate_shortcut: Feed the log learning rate relative to 1e-3.
        extreme_indicator: Feed how far the log learning rate is above 1 or
            below 1e-6.
        dynamic_output_scale: Normalise the direction and learn its length;
            without it the step is the direction itself.
        learnable_decay: Read the decays from the hidden state; else they are
            0.93 (mean squares) and 0.89 (gradients).
        learnable_input_decay: The same for the decay of the gradients alone.
        multiple_scale_decays: Give each timescale's mean square a decay of its
            own, as the gradients have.
        learnable_start: Meta-train the initial hidden states; else they stay
            the constants that were drawn.
        zero_learning_rate_weights: Start the learning-rate readout at zero.
        max_log_learning_rate: Upper bound of the log learning rate.
        global_rnn_input: `"all_tensors"` (their mean) or `"last_tensor"`
            (what the released code does).
        nominal: What the learning rates are drawn back to, see `nominal_rate.py`, and
            one more input, how far each is from it; None, as released: nothing.
        odd_direction: Multiply the scaled gradients by what the RNN reads out, instead
            of adding it: the direction is then 0 where they are, and changes its sign
            with them. Ours, as the next three.
        absolute_inputs: Feed the sizes of the scaled gradients. Together with
            `odd_direction` a step is odd: with all signs of a parameter and of its
            gradients changed it is the same with its sign changed, exactly.
        gradient_decline: Lower the nominal rate of a tensor when its gradients have
            become small for good, see `NominalRate.decline`.
        horizon_input: Show the RNN of each tensor the fraction of a known number of
            steps that is left; 1 where that is not known.

    Raises:
        ValueError: If a value is out of its range or two contradict each other.
        TypeError: If a switch is not a boolean.
    """

    level_sizes: tuple[int, ...] = (10, 20, 20)
    gradient_timescales: int = 4
    attention: bool = False
    relative_learning_rate: bool = True
    learning_rate_mean: str = "problem"
    log_mean_squares: bool = True
    gradient_products: bool = True
    gradient_shortcut: bool = True
    learning_rate_shortcut: bool = False
    extreme_indicator: bool = False
    dynamic_output_scale: bool = True
    learnable_decay: bool = True
    learnable_input_decay: bool = True
    multiple_scale_decays: bool = False
    learnable_start: bool = True
    zero_learning_rate_weights: bool = True
    max_log_learning_rate: float = 33.0
    global_rnn_input: str = "all_tensors"
    nominal: NominalRate | None = None
    odd_direction: bool = False
    absolute_inputs: bool = False
    gradient_decline: bool = False
    horizon_input: bool = False

    def __post_init__(self):
        sizes = self.level_sizes
        if (
            not isinstance(sizes, (tuple, list))
            or not 1 <= len(sizes) <= 3
            or not all(is_positive_integer(size) for size in sizes)
        ):
            raise ValueError(
                "`level_sizes` must be one to three positive integers. "
                f"Received: level_sizes={sizes!r}"
            )
        object.__setattr__(self, "level_sizes", tuple(int(size) for size in sizes))
        if not is_positive_integer(self.gradient_timescales):
            raise ValueError(
                "`gradient_timescales` must be a positive integer. "
                f"Received: gradient_timescales={self.gradient_timescales!r}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):
                raise TypeError(
                    f"`{field.name}` must be True or False. "
                    f"Received: {field.name}={value!r}"
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {choices}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        limit = self.max_log_learning_rate
        if (
            isinstance(limit, bool)
            or not isinstance(limit, (int, float))
            or not math.isfinite(limit)
            or limit <= MIN_LOG_LEARNING_RATE
        ):
            raise ValueError(
                "`max_log_learning_rate` must be a finite number above "
                f"{MIN_LOG_LEARNING_RATE}. Received: max_log_learning_rate={limit!r}"
            )
        object.__setattr__(self, "max_log_learning_rate", float(limit))
        object.__setattr__(self, "nominal", NominalRate.from_value(self.nominal))
        for name in ("gradient_decline", "horizon_input"):
            if getattr(self, name) and self.nominal is None:
                raise ValueError(
                    f"`{name}` needs a nominal learning rate. "
                    f"Received: {name}=True, nominal=None"
                )
        if self.horizon_input and self.levels < 2:
            raise ValueError(
                "`horizon_input` needs an RNN of tensors, the second of `level_sizes`. "
                f"Received: horizon_input=True, level_sizes={self.level_sizes}"
            )
        if not self.dynamic_output_scale:
            for name in _RATE_INPUTS:
                if getattr(self, name):
                    raise ValueError(
                        f"`{name}` needs a learning rate, which only "
                        "`dynamic_output_scale=True` has. Received: "
                        f"{name}={getattr(self, name)}, dynamic_output_scale=False"
                    )

    @property
    def levels(self) -> int:
        """Number of levels, 1 to 3."""
        return len(self.level_sizes)

    @property
    def learns_gradient_decay(self) -> bool:
        """Whether the decay of the gradients is read from the hidden state."""
        return (
            self.learnable_decay
            and self.learnable_input_decay
            and self.gradient_timescales > 1
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs of the parameter RNN, in their order."""
        timescales = range(self.gradient_timescales)
        names = [f"scaled_gradient_{k}" for k in timescales]
        if self.gradient_products:
            names += [f"gradient_product_{k}" for k in timescales[:-1]]
        if self.log_mean_squares:
            names += [f"log_mean_square_{k}" for k in timescales]
        names += [name for name in _RATE_INPUTS if getattr(self, name)]
        return tuple(names)

    @property
    def extra_inputs(self) -> int:
        """Number of RNN inputs beside the scaled gradients."""
        return self.inputs - self.gradient_timescales

    @property
    def inputs(self) -> int:
        """Number of inputs of the parameter RNN, 12 by default."""
        return len(self.input_names)

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON types."""
        values = dataclasses.asdict(self)
        values["level_sizes"] = list(self.level_sizes)
        if self.nominal is not None:
            values["nominal"] = self.nominal.to_dict()
        for name in LATER_SWITCHES:
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The config of a card.

        Args:
            values: Field names, or the released code's names of them.

        Raises:
            ValueError: On an unknown name, a name given twice, or a bad value.
            TypeError: If it is no mapping, or a switch is not a boolean.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                "A config must be a mapping from its fields to their values. "
                f"Received: {values!r}"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        arguments = {}
        for name, value in values.items():
            field = RELEASED_NAMES.get(name, name)
            if name == "use_problem_lr_mean":
                field, value = "learning_rate_mean", "problem" if value else "tensor"
            if name == "global_rnn_input" and value == "mean_over_tensors":
                value = "all_tensors"
            if field not in known:
                raise ValueError(
                    f"A config has the fields {sorted(known)}. Received: {name!r}"
                )
            if field in arguments:
                raise ValueError(
                    f"A config names each field once. Received twice: {field!r}"
                )
            arguments[field] = value
        return cls(**arguments)


_RATE_INPUTS = (
    "relative_learning_rate",
    "extreme_indicator",
    "learning_rate_shortcut",
    "nominal",
)
_CHOICES = {
    "learning_rate_mean": ("problem", "tensor"),
    "global_rnn_input": ("all_tensors", "last_tensor"),
}


def is_positive_integer(value) -> bool:
    """Whether it is an integer above 0, and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
