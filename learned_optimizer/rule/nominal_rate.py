"""A nominal learning rate that the learned ones are drawn back to.

The released optimizer integrates its learning rates: whatever the RNN adds at a step
stays. Meta-trained on windows of some hundred steps it learns to let them fall for
good, and a parameter whose rate has collapsed neither moves nor, since it does not
move, sends a meta-gradient that would mend that. With `Config.nominal` set, each log
learning rate forgets: it is drawn back, by a fixed fraction a step, to a nominal one,
and stays within a fixed distance of it. What the RNN says then counts for as long as
it says it, over any length of training, and a bad start is forgotten.

The nominal rate of a tensor is proportional to the size of its parameters (the root
mean square at the first step of any) and falls with a power of its number of steps:

    log nominal = log ratio + log size - power * log(1 + steps / decay_steps)

Two switches are for deep networks. The scales of a normalisation have size 1 among
kernels of size 0.05, and would move twenty times as fast: `largest` bounds what a
tensor counts for by the size of the problem as a whole. And the steps of many layers
add up: from `shallow_tensors` tensors on, all sizes are divided by the square root of
their number, as independent relative changes of layers in a row add up. A third is for
wide networks. The entries of a step agree with one another more than those of a kernel,
so that its spectral norm, relative to the kernel's, grows with the root of the width
(Yang et al., *A Spectral Condition for Feature Learning*, 2023): from `narrow_width`
on, a tensor's size is divided by the square root of its width (`layout.width`).

Where the number of steps of the whole training is known, a `Horizon`, the nominal rate
follows a schedule over it instead: after t of K updates it is

    ratio * size * peak * (K / 1000)^-horizon_power * min(1, (t + 1) / (warmup * K))
        * (1 + t / decay_steps)^-horizon_decay * (end + (1 - end) * left^fall_power)
    left = min(1, (1 - t / K) / (1 - fall_start))

with `horizon_peak`, `horizon_warmup` and `fall_end`. From step K on it stays at its
end. Of a few layers it can then be higher than of many: `horizon_shallow_tensors` takes
the place of `shallow_tensors`.

Neither the released code nor what we know of the paper has this; it is off by default.
It owes to the nominal terms of Harrison et al., *A Closer Look at Learned
Optimization*, 2022, and its relative size to Adafactor (Shazeer and Stern, 2018,
section 8).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras import ops

from learned_optimizer.rule.layout import segment_sum, sum_blocks
from learned_optimizer.utils.flags import check_settings, setting

# The size of the parameters of a model in which all are zero.
SIZE_OF_ZEROS = 0.1


# The fields that came after `default-v2`. Where they have their defaults they are not
# written, so that the same architecture has the same config, whenever it is written.
LATER_FIELDS = (
    "narrow_width",
    "horizon_peak",
    "horizon_shallow_tensors",
    "horizon_warmup",
    "horizon_power",
    "horizon_decay",
    "fall_start",
    "fall_power",
    "fall_end",
    "decline",
)


class Horizon(NamedTuple):
    """How long the training of each problem is, and how far it has come.

    Attributes:
        total_steps: `[problems]` or a scalar, updates of the whole training; 0 where
            that is not known.
        steps: `[problems]` or a scalar, updates that were made before this one.
    """

    total_steps: Any
    steps: Any

    def of_tensors(self, layout) -> "Horizon":
        """The same, float32 `[tensors]`."""

        def gather(value):
            value = ops.cast(value, "float32")
            value = ops.broadcast_to(value, (layout.num_problems,))
            return ops.take(value, layout.tensor_problem, axis=0)

        return Horizon(*map(gather, self))

    def fraction_left(self):
        """From 1 to 0 over the training, and 0 beyond it; 1 where it is not known."""
        left = 1.0 - self.steps / ops.maximum(self.total_steps, 1.0)
        return ops.where(self.total_steps > 0, ops.maximum(left, 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class NominalRate:
    """The nominal learning rate, and what binds the learned ones to it.

    Raises:
        ValueError: If a value is out of its range.
    """

    ratio: float = setting(
        0.05,
        "Nominal learning rate at the first step, for parameters of size 1.",
        above=0,
    )
    memory: float = setting(
        50.0,
        "Steps in which a deviation from the nominal rate falls to 1/e.",
        at_least=1,
    )
    decay_steps: float = setting(
        1000.0, "Steps after which the nominal rate has fallen to 1 / 2^power.", above=0
    )
    power: float = setting(
        1.0,
        "With what power of the steps the nominal rate falls.",
        at_least=0,
        at_most=2,
    )
    lowest: float = setting(
        -8.0, "Least deviation of log learning rates from the nominal one.", below=0
    )
    highest: float = setting(
        1.0, "Largest deviation of log learning rates from the nominal one.", above=0
    )
    largest: float | None = setting(
        None,
        "A tensor counts for the nominal rate as at most this many times as large as "
        "the root mean square of all parameters of its problem.",
        above=0,
        zero_is_none=True,
    )
    shallow_tensors: float | None = setting(
        None,
        "In a problem of more tensors than this, sizes are divided by the square root "
        "of the ratio for the nominal rate.",
        above=0,
        zero_is_none=True,
    )
    narrow_width: float | None = setting(
        None,
        "The size of a tensor wider than this is divided by the square root of the "
        "ratio for the nominal rate.",
        above=0,
        zero_is_none=True,
    )
    horizon_peak: float = setting(
        0.8,
        "With a known horizon: the nominal rate at the first step, in multiples of "
        "`ratio`, for 1,000 steps in all.",
        above=0,
    )
    horizon_shallow_tensors: float | None = setting(
        None,
        "With a known horizon: what `shallow_tensors` is without; None: the same.",
        above=0,
        zero_is_none=True,
    )
    horizon_warmup: float = setting(
        0.0,
        "With a known horizon: the fraction of steps over which the rate rises first.",
        at_least=0,
        below=1,
    )
    horizon_power: float = setting(
        0.25,
        "With a known horizon: with what power of its length the nominal rate falls.",
        at_least=0,
        at_most=1,
    )
    horizon_decay: float = setting(
        0.0, "With a known horizon: what `power` is without.", at_least=0, at_most=2
    )
    fall_start: float = setting(
        0.0,
        "With a known horizon: the fraction of steps after which the last fall begins.",
        at_least=0,
        below=1,
    )
    fall_power: float = setting(
        1.0, "Power of the last fall; 1 is linear.", above=0, at_most=4
    )
    fall_end: float = setting(
        0.01, "What the last fall leaves of the nominal rate.", above=0, at_most=1
    )
    decline: float = setting(
        0.5,
        "With `gradient_decline`: with what power of the size of a tensor's gradients, "
        "relative to their largest, its nominal rate falls.",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self):
        check_settings(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, float(value))

    @classmethod
    def from_value(cls, value) -> "NominalRate | None":
        """A `NominalRate` from itself, its dict, or None.

        Raises:
            ValueError: If the dict has other fields.
            TypeError: If it is none of these.
        """
        if value is None or isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise TypeError(
                "`nominal` must be a NominalRate, a dict of its fields, or None. "
                f"Received: {value!r}"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if not set(value) <= known:
            raise ValueError(
                f"`nominal` has the fields {sorted(known)}. Received: {sorted(value)}"
            )
        return cls(**value)

    def log_rate(self, log_size, steps, horizon: Horizon | None = None, layout=None):
        """Log of the nominal learning rates. Equations 16 and 19.

        `log ratio + log size - power log(1 + steps / decay_steps)` (16), or over a
        known horizon what the module's docstring says (19).

        Args:
            log_size: Logs of the sizes of tensors, of any shape.
            steps: Their numbers of steps, likewise.
            horizon: Of each tensor, in a shape that broadcasts; None: none is known.
            layout: Which problem each belongs to, for `horizon_shallow_tensors`.
        """
        fallen = self.power * ops.log(1.0 + steps / self.decay_steps)
        rates = math.log(self.ratio) + log_size - fallen
        if horizon is None:
            return rates
        factor = (
            _log(self.horizon_peak)
            - self.horizon_power * ops.log(ops.maximum(horizon.total_steps, 1.0) / 1e3)
            - self.horizon_decay * ops.log(1.0 + horizon.steps / self.decay_steps)
        )
        if self.horizon_shallow_tensors is not None:
            factor += log_depths(layout, self.shallow_tensors)
            factor -= log_depths(layout, self.horizon_shallow_tensors)
        # At least a step long: without a warm-up the first one counts whole.
        warmup = ops.maximum(self.horizon_warmup * horizon.total_steps, 1.0)
        factor += ops.log(ops.minimum((horizon.steps + 1.0) / warmup, 1.0))
        left = ops.minimum(horizon.fraction_left() / (1.0 - self.fall_start), 1.0)
        left = self.fall_end + (1.0 - self.fall_end) * ops.power(left, self.fall_power)
        scheduled = math.log(self.ratio) + log_size + factor + ops.log(left)
        return ops.where(horizon.total_steps > 0, scheduled, rates)

    def to_dict(self) -> dict[str, float | None]:
        """The fields, without those of `LATER_FIELDS` that have their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in LATER_FIELDS or value != defaults[name]
        }


def _log(value):
    """Of a number, or of a tensor that stands for one."""
    return math.log(value) if isinstance(value, float) else ops.log(value)


def mean_squares(values, layout) -> Any:
    """`[tensors]` mean squares of packed values, `[blocks, block_size]`, padding 0."""
    squares = sum_blocks(ops.sum(ops.square(values), axis=-1), layout)
    elements = ops.convert_to_tensor(layout.tensor_elements)
    return squares / ops.maximum(elements, 1.0)


def log_sizes(mean_squares, layout, rate: NominalRate) -> Any:
    """`[1, tensors]` logs of the root mean squares of tensors.

    A tensor of zeros, a bias for instance, counts as large as the others of its
    problem are in the geometric mean; where all are zero, as `SIZE_OF_ZEROS`. The
    switches of the rate come after that.

    Args:
        mean_squares: `[tensors]`.
        layout: Which problem each belongs to.
        rate: Whose switches there are.
    """

    def of_problems(per_tensor):
        return segment_sum(per_tensor, layout.tensor_problem, layout.num_problems)

    def of_its_problem(per_problem):
        return ops.take(per_problem, layout.tensor_problem, axis=0)

    is_known = ops.cast(mean_squares > 0, "float32")
    logs = 0.5 * ops.log(ops.where(mean_squares > 0, mean_squares, 1.0))
    totals, counts = of_problems(logs), of_problems(is_known)
    means = ops.where(
        counts > 0, totals / ops.maximum(counts, 1.0), math.log(SIZE_OF_ZEROS)
    )
    sizes = ops.where(mean_squares > 0, logs, of_its_problem(means))
    elements = ops.convert_to_tensor(layout.tensor_elements)
    if rate.largest is not None:
        squares, numbers = of_problems(mean_squares * elements), of_problems(elements)
        bound = 0.5 * ops.log(
            ops.where(squares > 0, squares / ops.maximum(numbers, 1.0), 1.0)
        )
        # No bound where all is zero; not infinity, which debuggers take for a fault.
        bound = ops.where(squares > 0, bound + math.log(rate.largest), 1e30)
        sizes = ops.minimum(sizes, of_its_problem(bound))
    if rate.narrow_width is not None:
        widths = ops.convert_to_tensor(layout.tensor_widths)
        sizes -= 0.5 * ops.log(ops.maximum(widths / rate.narrow_width, 1.0))
    return (sizes - log_depths(layout, rate.shallow_tensors))[None]


def log_depths(layout, shallow_tensors: float | None) -> Any:
    """`[tensors]` logs of what each size is divided by, since problems are deep.

    That is the square root of how many times more tensors than `shallow_tensors` its
    problem has, 1 where there are fewer; None: 1.
    """
    if shallow_tensors is None:
        return 0.0
    is_there = ops.cast(ops.convert_to_tensor(layout.tensor_elements) > 0, "float32")
    tensors = segment_sum(is_there, layout.tensor_problem, layout.num_problems)
    deeper = 0.5 * ops.log(ops.maximum(tensors / shallow_tensors, 1.0))
    return ops.take(deeper, layout.tensor_problem, axis=0)
