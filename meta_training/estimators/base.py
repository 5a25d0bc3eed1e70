"""What an estimator of the meta-gradient is, those that exist, and the released one."""

import abc
from typing import Any, ClassVar, NamedTuple

from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import Carry, UnrollConfig, Window
from meta_training.optimizers.base import TrainableOptimizer
from meta_training.registry import Registry


class Estimate(NamedTuple):
    """The outcome of one window.

    Attributes:
        gradient: Of the weighted sum of the losses, a dict like the
            meta-parameters.
        window: Where the window led to.
        state: What the estimator carries on, a dict of arrays.
    """

    gradient: dict[str, Any]
    window: Window
    state: dict[str, Any]


class Estimator(abc.ABC):
    """Estimates the gradient of the meta-objective from one window.

    Attributes:
        replicas: Problems that it needs for each task.
    """

    replicas: ClassVar[int] = 1

    def __init__(
        self,
        batch: ProblemBatch,
        optimizer: TrainableOptimizer,
        options: UnrollConfig,
        **settings,
    ):
        """Prepares the inner loop."""
        if settings:
            raise ValueError(
                f"this estimator must have no settings. Received: {sorted(settings)}"
            )
        self.unroll = Unroll(batch, optimizer, options)

    def initial_state(self) -> dict[str, Any]:
        """The state before the first window, float32 NumPy arrays."""
        return {}

    @abc.abstractmethod
    def estimate(
        self,
        meta_parameters: dict[str, Any],
        carry: Carry,
        state: dict[str, Any],
        num_steps: Any,
        seed: Any,
    ) -> Estimate:
        """Runs a window from where the last one's `carry` and `state` left off.

        It is pure, and compiled with XLA. `num_steps` and `seed`, that of everything
        random in the window, are scalar int32.
        """


_estimators: Registry[type[Estimator]] = Registry("an estimator")
register_estimator = _estimators.register
estimator = _estimators.get
list_estimators = _estimators.names


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
