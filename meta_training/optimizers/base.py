"""The interface of trainable optimizers, and their registry.

A trainable optimizer is a pure function of packed arrays
(`learned_optimizer.rule.layout`):

    step = optimizer.compute_step(gradients, state, layout, meta_parameters)
    values, state = values - step.step, step.state

Its settings are the fields of a frozen dataclass, made by `setting` and checked. Its
meta-parameters are an argument of every call, a dict of arrays that may have a leading
axis of problems, for estimators that perturb each task separately. Its state is a named
tuple of float32 arrays whose last axes are those of one *level*:

    "parameter"   [features, blocks, block_size]
    "tensor"      [..., tensors]
    "problem"     [..., problems]

The field `log_learning_rate`, if there is one, is written from outside where a
trajectory starts: the initial learning rates are drawn there.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.levels import Levels
from learned_optimizer.rule.meta_parameters import Specification
from learned_optimizer.rule.update_rule import Step, Update
from learned_optimizer.utils.flags import check_settings
from meta_training.registry import Registry


class TrainableOptimizer(abc.ABC):
    """An optimizer whose meta-parameters can be trained.

    Attributes:
        name: Its name on the command line and in the cards of weights.
        state_type: The named tuple of its state.
        state_levels: The level of each field of the state.
        uses_attention: Whether gradients are taken at other points than the values.
        max_log_learning_rate: Upper bound of the drawn `log_learning_rate`.
        takes_horizon: Whether `compute_step` takes `horizon`, a
            `learned_optimizer.rule.nominal_rate.Horizon`.
    """

    name: ClassVar[str]
    state_type: ClassVar[type]
    state_levels: ClassVar[Mapping[str, str]]
    uses_attention: bool = False
    takes_horizon: bool = False
    max_log_learning_rate: float = 33.0

    def __post_init__(self):
        check_settings(self)

    @abc.abstractmethod
    def specifications(self) -> list[Specification]:
        """The meta-parameter arrays, in a fixed order."""

    def is_fixed(self, name: str) -> bool:
        """Whether that array is never trained."""
        return False

    def state_shapes(self, layout: Layout) -> dict[str, tuple]:
        """The shape of each field of the state; absent ones have a size of 0.

        One number a row of its level, unless an optimizer says otherwise.
        """
        rows = {
            "parameter": (layout.num_blocks, layout.block_size),
            "tensor": (layout.num_tensors,),
            "problem": (layout.num_problems,),
        }
        return {name: (1, *rows[level]) for name, level in self.state_levels.items()}

    def initial_state(self, layout: Layout, meta_parameters, log_learning_rate, values):
        """The state before the first step; zeros, unless an optimizer says otherwise.

        Args:
            layout: The packed layout.
            meta_parameters: Their dict.
            log_learning_rate: Natural logarithm of the initial learning rates, which
                broadcasts against `[1, blocks, block_size]`, where not all are learned.
            values: `[blocks, block_size]`, the parameters, padding 0.
        """
        return self.state_type(*map(tf.zeros, self.state_shapes(layout).values()))

    @abc.abstractmethod
    def compute_step(
        self, gradients, state, layout: Layout, meta_parameters, active=None
    ) -> Step:
        """The step to subtract from the values, and the new state.

        Args:
            gradients: `[blocks, block_size]` float32.
            state: The state after the previous step.
            layout: The packed layout.
            meta_parameters: Their dict, with or without an axis of problems.
            active: `[tensors]`: 0 leaves a tensor and its state unchanged. None: all
                are updated.
        """

    @abc.abstractmethod
    def log_learning_rates(self, state, layout: Layout, meta_parameters):
        """For the log: numbers that broadcast to `[blocks, block_size]`, or None."""

    def own_learning_rate(self, meta_parameters) -> float | None:
        """The learned rate as one number; None: the user chooses where it starts."""
        return None

    @property
    def takes_initial_rates(self) -> bool:
        """Whether an initial learning rate makes a difference."""
        layout = Layout.from_shapes([(1,)], 1)
        return self.state_shapes(layout).get("log_learning_rate", (0,))[0] > 0

    def update(self, values, gradients, state, layout, meta_parameters) -> Update:
        """`[blocks, block_size]` values after the step that `compute_step` gives."""
        step = self.compute_step(gradients, state, layout, meta_parameters)
        return step.applied_to(values)

    def initial_meta_parameters(self, seed=None) -> dict[str, np.ndarray]:
        """Fresh meta-parameters; `seed` is any of `numpy.random.default_rng`."""
        generator = np.random.default_rng(seed)
        return {
            specification.name: specification.initial_value(generator)
            for specification in self.specifications()
        }

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainableOptimizer":
        """The reverse of `to_dict`; missing settings have their defaults.

        Raises:
            ValueError: A name is not that of a setting, or a value is bad.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not set(values) <= known:
            raise ValueError(
                f"The settings of {cls.name} must be among {sorted(known)}. "
                f"Received: {sorted(values)}"
            )
        return cls(**values)

    def levels(self, meta_parameters, layout: Layout) -> Levels:
        """The meta-parameters for the rows of each level."""
        first = self.specifications()[0]
        has_axis = len(meta_parameters[first.name].shape) > len(first.shape)
        return Levels(meta_parameters, layout, has_axis)

    def number(self, name, meta_parameters, layout: Layout):
        """A scalar array, in a shape that broadcasts to `[blocks, block_size]`."""
        value = self.levels(meta_parameters, layout).get(name, "parameter")
        return tf.reshape(value, [-1, 1])

    def held(self, step: Step, state, layout: Layout, active) -> Step:
        """`step`, but with inactive tensors unchanged."""
        if active is None:
            return step
        of_blocks = tf.gather(active, layout.block_tensor)[:, None] > 0
        masks = {"parameter": of_blocks, "tensor": tf.convert_to_tensor(active) > 0}
        fields = [
            tf.where(masks[self.state_levels[name]], new, old)
            for name, new, old in zip(state._fields, step.state, state, strict=True)
        ]
        return Step(tf.where(of_blocks, step.step, 0.0), None, self.state_type(*fields))


_optimizers: Registry[type[TrainableOptimizer]] = Registry("a trainable optimizer")


def register_optimizer(optimizer_class: type[TrainableOptimizer]):
    """A decorator that adds an optimizer class under its `name`, which must be new."""
    _optimizers.register(optimizer_class.name)(optimizer_class)
    return optimizer_class


def trainable_optimizer(
    name: str, settings: Mapping[str, Any] | None = None
) -> TrainableOptimizer:
    """The trainable optimizer of that name, with settings as in `to_dict`.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    return _optimizers.get(name).from_dict(settings or {})


list_optimizers = _optimizers.names
