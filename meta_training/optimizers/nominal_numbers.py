"""The hierarchical RNN with the numbers of its nominal rate among its meta-parameters.

In the architecture they are constants. A search over them would compile every program
anew for each set that it tries; here they are data, `nominal.FIELD` scalars beside the
arrays.
"""

import copy
import dataclasses

from keras import ops

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.arrays import under_prefix
from meta_training.optimizers.hierarchical import HierarchicalRule

PREFIX = "nominal."


def split_numbers(values):
    """The arrays, and what `nominal.FIELD` names by field."""
    numbers = under_prefix(PREFIX, values)
    arrays = {name: v for name, v in values.items() if not name.startswith(PREFIX)}
    return arrays, numbers


class _NominalRateOfTensors(NominalRate):
    """A nominal rate some fields of which are scalar tensors; none is checked."""

    def log_rate(self, *arguments):
        return super().log_rate(*arguments) + self.log_ratio


@dataclasses.dataclass(frozen=True)
class RuleWithNominalNumbers(HierarchicalRule):
    """`HierarchicalRule`, but `nominal.FIELD` meta-parameters replace constants."""

    def initial_state(self, layout, meta_parameters, log_learning_rate, values):
        rule, arrays = self._split(meta_parameters)
        return rule.initial_state(layout, arrays, log_learning_rate, values)

    def compute_step(self, gradients, state, layout, meta_parameters, *more, **options):
        rule, arrays = self._split(meta_parameters)
        return rule.compute_step(gradients, state, layout, arrays, *more, **options)

    def _split(self, meta_parameters):
        """The rule with these numbers, and the arrays alone."""
        arrays, numbers = split_numbers(meta_parameters)
        if not numbers:
            return HierarchicalRule(self.config), arrays
        nominal = object.__new__(_NominalRateOfTensors)
        fields = {**vars(self.config.nominal), **numbers}
        # The formula takes its logarithm as that of a Python number.
        fields["log_ratio"] = ops.log(ops.convert_to_tensor(fields["ratio"], "float32"))
        fields["ratio"] = 1.0
        for name, value in fields.items():
            object.__setattr__(nominal, name, value)
        config = copy.copy(self.config)
        object.__setattr__(config, "nominal", nominal)
        return HierarchicalRule(config), arrays
