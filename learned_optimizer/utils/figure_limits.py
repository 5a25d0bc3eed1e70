"""How far the axes of figures reach."""

import math
from collections.abc import Sequence


def shown_limits(losses: Sequence[float]) -> tuple[float | None, float | None]:
    """From where to where a figure of losses should reach, None: as far as they do.

    An optimizer that flies off for some steps would press all other curves flat. The
    bottom is given with the top, for matplotlib's margin is a part of the whole range.
    """
    finite = sorted(value for value in losses if math.isfinite(value))
    if not finite:
        return None, None
    usual = finite[int(0.95 * (len(finite) - 1))]
    if not finite[-1] > 1.5 * usual > 0:
        return None, None
    top = 1.1 * usual
    return finite[0] - 0.05 * (top - finite[0]), top
