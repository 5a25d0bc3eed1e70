"""How long a step takes; no TensorFlow is imported."""

import statistics
import time
from collections.abc import Callable

_WARM_UPS = 2


def median_seconds(run: Callable[[], None], repetitions: int) -> float:
    """Median of the runs after the first two; each must wait for its result."""
    seconds = []
    for _ in range(_WARM_UPS + repetitions):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[_WARM_UPS:])
