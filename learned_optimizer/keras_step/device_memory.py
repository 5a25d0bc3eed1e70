"""Whether the state of a model fits its device: found out before any of it is made."""

import math

import keras

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.half_precision import HALF_FIELDS
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.state import state_shapes

_BYTES = 4


def check_memory(layout: Layout, config: Config, state_dtype: str):
    """Refuses a model for which the device says that it has too little memory."""
    free = free_bytes()
    if free is None:
        return
    parameters = sum(math.prod(shape) for shape in layout.shapes)
    state = sum(
        math.prod(map(int, shape))
        * (_BYTES // 2 if state_dtype != "float32" and name in HALF_FIELDS else _BYTES)
        for name, shape in state_shapes(layout, config).items()
    )
    wanted = state + _BYTES * parameters
    if wanted > free:
        raise MemoryError(
            f"The device must have {wanted:,} bytes free, for {state:,} bytes of state "
            f"and the gradients of {parameters:,} parameters. Received: {free:,} bytes "
            "free"
        )


def free_bytes() -> int | None:
    """The free memory of the device that variables are made on; None: not told."""
    backend = keras.backend.backend()
    if backend == "jax" and keras.distribution.distribution() is None:
        import jax

        device = jax.config.jax_default_device or jax.local_devices()[0]
        stats = getattr(device, "memory_stats", lambda: None)() or {}
        if "bytes_limit" in stats:
            return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            free, _ = torch.cuda.mem_get_info()
            # What PyTorch keeps of what it has freed it can give out again.
            return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return None
