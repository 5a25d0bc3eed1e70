"""What `model_step` needs to know of a `HierarchicalRNN`, and what it may change."""

import numpy as np

from learned_optimizer.keras_step import model_step
from learned_optimizer.rule.gradients import Clipping
from learned_optimizer.rule.state import fields_of


class StepArguments:
    """The part of `HierarchicalRNN` that gathers the arguments of a step."""

    def step_spec(self, present) -> model_step.StepSpec:
        """What `model_step` needs to know before it runs.

        Args:
            present: Positions in the layout of the tensors that have a gradient.
        """
        learned = self.learned_variables
        decay = None
        if self.weight_decay is not None:
            decay = np.array(
                [
                    self.weight_decay if self._use_weight_decay(variable) else 0.0
                    for variable in learned
                ],
                np.float32,
            )
        return model_step.StepSpec(
            layout=self._layout[0],
            config=self.config,
            present=present,
            weight_decay=decay,
            clipping=Clipping(
                clipvalue=_positive(self.clipvalue),
                clipnorm=_positive(self.clipnorm),
                global_clipnorm=_positive(self.global_clipnorm),
            ),
            loss_scale_factor=self.loss_scale_factor,
            accumulation_steps=self.gradient_accumulation_steps,
            ema_momentum=self.ema_momentum if self.use_ema else None,
            ema_overwrite_frequency=self.ema_overwrite_frequency,
            constraints=tuple(
                getattr(variable, "constraint", None) for variable in learned
            ),
        )

    def step_variables(self, trainable_variables) -> model_step.Variables:
        """The variables that `model_step` reads and writes."""

        def learned(variables):
            return [variables[index] for index in self._learned_indices]

        return model_step.Variables(
            values=learned(trainable_variables),
            true_values=list(self._true_values) if self.config.attention else [],
            averages=learned(self._model_variables_moving_average)
            if self.use_ema
            else [],
            accumulators=learned(self._accumulated_gradients)
            if self.gradient_accumulation_steps
            else [],
            state={name: getattr(self, f"_{name}") for name in fields_of(self.config)},
            meta_parameters={
                name: getattr(self, f"_meta_{name}")
                for name in self.weights.meta_parameters
            },
            skipped_steps=self._skipped_steps,
            total_steps=[self._horizon.variable] if self.config.nominal else [],
        )


def _positive(limit):
    """A limit to clip at; as in Keras, 0 and less clip nothing."""
    return limit if limit is not None and limit > 0 else None
