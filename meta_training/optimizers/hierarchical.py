"""The hierarchical RNN as one trainable optimizer among others."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from learned_optimizer.rule import nominal_rate as nominal
from learned_optimizer.rule import state as rule_state
from learned_optimizer.rule import update_rule
from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import (
    initial_meta_parameters,
    specifications,
)
from meta_training.optimizers.base import TrainableOptimizer, register_optimizer


@register_optimizer
@dataclasses.dataclass(frozen=True)
class HierarchicalRule(TrainableOptimizer):
    """The update rule of `learned_optimizer`, unchanged."""

    config: Config = Config()

    name: ClassVar[str] = "hierarchical_rnn"
    state_type: ClassVar[type] = rule_state.State
    state_levels: ClassVar[Mapping[str, str]] = {
        name: field.level for name, field in rule_state.FIELDS.items()
    }

    @property
    def uses_attention(self) -> bool:
        """Whether the architecture has attention."""
        return self.config.attention

    @property
    def max_log_learning_rate(self) -> float:
        """That of the architecture."""
        return self.config.max_log_learning_rate

    def specifications(self):
        return specifications(self.config)

    def is_fixed(self, name):
        return name.endswith("_start") and not self.config.learnable_start

    def state_shapes(self, layout):
        return rule_state.state_shapes(layout, self.config)

    def initial_state(self, layout, meta_parameters, log_learning_rate, values):
        log_sizes = 0.0
        if self.config.nominal:
            squares = nominal.mean_squares(tf.convert_to_tensor(values), layout)
            log_sizes = nominal.log_sizes(squares, layout, self.config.nominal)
        return rule_state.initial_state(
            layout, meta_parameters, self.config, log_learning_rate, log_sizes
        )

    @property
    def takes_horizon(self) -> bool:
        """Whether the architecture has a nominal rate, which follows the horizon."""
        return self.config.nominal is not None

    def compute_step(
        self, gradients, state, layout, meta_parameters, active=None, **options
    ):
        """`options` are the `horizon` and `rounding` of `update_rule.compute_step`."""
        arguments = (gradients, state, layout, meta_parameters, self.config)
        return update_rule.compute_step(*arguments, active=active, **options)

    def log_learning_rates(self, state, layout, meta_parameters):
        if not self.config.dynamic_output_scale:
            return None
        return state.log_learning_rate[0]

    def initial_meta_parameters(self, seed=None):
        return initial_meta_parameters(self.config, seed)

    def to_dict(self) -> dict[str, Any]:
        return self.config.to_dict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "HierarchicalRule":
        return cls(Config.from_dict(values))
