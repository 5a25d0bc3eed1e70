"""What was measured of a training step; no TensorFlow is imported."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

WARM_UPS = 2


def median_seconds(run: Callable[[], None], repetitions: int) -> float:
    """Median of `repetitions` runs after `WARM_UPS`; each must wait for its result."""
    seconds = []
    for _ in range(WARM_UPS + repetitions):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UPS:])


def checked_batch_sizes(texts: Sequence[str]) -> list[int]:
    """Batch sizes to be timed, as a flag has them.

    Raises:
        ValueError: One is no positive whole number.
    """
    wrong = [text for text in texts if not (text.isdecimal() and int(text) > 0)]
    if wrong:
        raise ValueError(
            "timing_batches must be positive whole numbers. "
            f"Received: {', '.join(map(repr, wrong))}"
        )
    return [int(text) for text in texts]


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Medians of the parts of a step.

    Attributes:
        batch_size: Images a step.
        input_seconds: To get a batch when nothing else runs.
        gradient_seconds: Forward and backward pass.
        optimizer_seconds: The optimizer's step.
        parameters: That it updates.
        state_bytes: Of the optimizer's variables, but for those that are few.
    """

    batch_size: int
    input_seconds: float
    gradient_seconds: float
    optimizer_seconds: float
    parameters: int
    state_bytes: int

    @property
    def share(self) -> float:
        """The optimizer's part of gradients and optimizer together."""
        return self.optimizer_seconds / (self.optimizer_seconds + self.gradient_seconds)

    @property
    def state_bytes_per_parameter(self) -> float:
        """Of the optimizer's variables."""
        return self.state_bytes / self.parameters
