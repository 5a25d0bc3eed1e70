"""How far the axes of figures reach."""

import math
from collections.abc import Sequence


def highest_shown(losses: Sequence[float]) -> float | None:
    """Up to where a figure of losses should reach, None: as far as they do.

    An optimizer that flies off for some steps would press all other curves flat.
    """
    finite = sorted(value for value in losses if math.isfinite(value))
    if not finite:
        return None
    usual = finite[int(0.95 * (len(finite) - 1))]
    return 1.1 * usual if finite[-1] > 1.5 * usual > 0 else None
