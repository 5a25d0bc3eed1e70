"""The optimizers of the meta-parameters: RMSProp as released, Adam, on NumPy arrays.

There are about eight thousand numbers to update every few seconds, so NumPy is enough,
and the state is plain arrays for the checkpoint.
"""

import dataclasses
import math

import numpy as np

Arrays = dict[str, np.ndarray]

META_OPTIMIZERS = ("adam", "rmsprop")
_LARGEST_SLOPE = np.float32(1e18)


@dataclasses.dataclass(frozen=True)
class MetaOptimizer:
    """RMSProp or Adam with clipped gradients and an optional cosine decay.

    Attributes:
        name: `adam` (0.9, 0.999, 1e-8) or `rmsprop` (0.9, 1e-20, mean squares that
            start at 1: TensorFlow 1's, as released).
        learning_rate: At the first outer step.
        decay_steps: Outer steps of the cosine decay down to `final_fraction` of the
            rate; None: no decay.
        final_fraction: The learning rate at the end over that at the start.
        clip_value: Bound on each element of the gradient; None: none.
        clip_norm: Bound on the norm of the whole gradient, after that; None: none.
    """

    name: str
    learning_rate: float
    decay_steps: int | None = None
    final_fraction: float = 0.02
    clip_value: float | None = None
    clip_norm: float | None = None

    def initial_state(self, values: Arrays) -> Arrays:
        """The slots before the first step."""
        state = {"applied": np.zeros((), np.int64)}
        for name, value in values.items():
            if self.name == "adam":
                state[f"mean/{name}"] = np.zeros_like(value)
                state[f"square/{name}"] = np.zeros_like(value)
            else:
                state[f"square/{name}"] = np.ones_like(value)
        return state

    def rate(self, outer_step: int) -> float:
        """The learning rate at an outer step."""
        if self.decay_steps is None:
            return self.learning_rate
        done = min(outer_step / self.decay_steps, 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (
            self.final_fraction + (1 - self.final_fraction) * cosine
        )

    def clip(self, gradient: Arrays) -> Arrays:
        """The gradient within its bounds."""
        if self.clip_value is not None:
            gradient = {
                name: np.clip(value, -self.clip_value, self.clip_value)
                for name, value in gradient.items()
            }
        if self.clip_norm is not None:
            factor = min(1.0, self.clip_norm / max(norm(gradient), 1e-30))
            gradient = {
                name: value * np.float32(factor) for name, value in gradient.items()
            }
        return gradient

    def apply(
        self, values: Arrays, gradient: Arrays, state: Arrays, outer_step: int
    ) -> tuple[Arrays, Arrays]:
        """One step with a clipped gradient: new values and new slots."""
        rate = self.rate(outer_step)
        count = int(state["applied"]) + 1
        new_values, new_state = {}, {"applied": np.array(count)}
        for name, value in values.items():
            # Its square must be a float32.
            slope = np.clip(gradient[name], -_LARGEST_SLOPE, _LARGEST_SLOPE)
            square = state[f"square/{name}"]
            if self.name == "adam":
                mean = 0.9 * state[f"mean/{name}"] + 0.1 * slope
                square = 0.999 * square + 0.001 * slope**2
                new_state[f"mean/{name}"] = mean.astype(np.float32)
                change = (mean / (1 - 0.9**count)) / (
                    np.sqrt(square / (1 - 0.999**count)) + 1e-8
                )
            else:
                square = 0.9 * square + 0.1 * slope**2
                change = slope / np.sqrt(square + 1e-20)
            new_state[f"square/{name}"] = square.astype(np.float32)
            new_values[name] = (value - rate * change).astype(np.float32)
        return new_values, new_state


def norm(gradient: Arrays) -> float:
    """The norm of all arrays taken as one vector."""
    return math.sqrt(
        sum(float(np.sum(np.square(v, dtype=float))) for v in gradient.values())
    )
