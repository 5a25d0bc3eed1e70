"""Backpropagation through one window: exact there, blind to what comes after it."""

from meta_training.estimators.base import Estimate, Estimator, register_estimator


@register_estimator("truncated")
class TruncatedBackpropagation(Estimator):
    """The gradient of the window's losses, truncated at its start (released code).

    It favours what pays within a window: with short ones it teaches the optimizer to
    anneal at once and then stand still.
    """

    def estimate(self, meta_parameters, carry, state, num_steps, seed) -> Estimate:
        window, gradient = self.unroll.run_and_differentiate(
            meta_parameters, carry, num_steps, seed
        )
        return Estimate(gradient, window, state)
