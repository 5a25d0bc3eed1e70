"""A state in bfloat16: rounded up or down at random, lest averages stand still.

An average that moves by less than half the distance of two numbers of bfloat16, 0.4%
of its size, would else be rounded back to what it was. Which way a number is rounded
follows from a hash of the step and of where it lies: no generator, the same on every
device.
"""

import keras
from keras import ops

# The fields of parameters that may be in it; log learning rates stay float32.
HALF_FIELDS = ("hidden_state", "gradient_averages", "mean_squares")
# Odd numbers of 32 bits, as signed integers: those of Wellons's `lowbias32`, and the
# golden ratio.
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)
_GOLDEN = 0x9E3779B9 - 2**32


def block_seeds(step, num_blocks):
    """`[1, blocks, 1]` int32, different in each block and at each step."""
    step = _mixed(ops.cast(step, "int32") + 1)
    return _mixed(step + _GOLDEN * ops.arange(num_blocks, dtype="int32"))[None, :, None]


def as_integers(state: dict) -> dict:
    """Fields of the state with the bits of those in bfloat16 as int16.

    XLA has vectors of such on all processors.
    """
    return {
        name: ops.view(x, "int16")
        if keras.backend.standardize_dtype(x.dtype) == "bfloat16"
        else x
        for name, x in state.items()
    }


def as_floats(state: dict) -> dict:
    """The reverse of `as_integers`."""
    return {
        name: ops.view(x, "bfloat16") if _is_int16(x) else x
        for name, x in state.items()
    }


def widened(x):
    """float32 of what `as_integers` made; what is float32 already as it is."""
    if not _is_int16(x):
        return x
    # The upper 16 bits of a float32 are a bfloat16.
    return ops.view(ops.left_shift(ops.cast(x, "int32"), 16), "float32")


def rounded(values: dict, seeds):
    """Float32 `values` of `HALF_FIELDS` rounded to bfloat16, their bits as int16.

    `seeds` are from `block_seeds`; without them all stay float32.
    """
    if seeds is None:
        return values
    width = values["hidden_state"].shape[-1]
    lanes = _GOLDEN * ops.arange(width, dtype="int32")
    hashes = _mixed(seeds + lanes)
    row = 0
    found = dict(values)
    for name in HALF_FIELDS:
        features = values[name].shape[0]
        # Odd multiples of one hash are as good as hashes, and cost one product.
        odd = 2 * (row + ops.arange(features, dtype="int32")) + 1
        row += features
        bits = _shifted(hashes * (_GOLDEN * odd)[:, None, None], 16)
        found[name] = _round(values[name], bits)
    return found


def _round(x, bits):
    """Rounded up by a chance that is the share of what would be dropped."""
    return ops.cast(ops.right_shift(ops.view(x, "int32") + bits, 16), "int16")


def _is_int16(x) -> bool:
    return keras.backend.standardize_dtype(x.dtype) == "int16"


def _mixed(x):
    """A hash of int32 (Wellons 2018, `lowbias32`)."""
    for shift, multiplier in zip((16, 15), _MULTIPLIERS, strict=True):
        x = ops.bitwise_xor(x, _shifted(x, shift)) * multiplier
    return ops.bitwise_xor(x, _shifted(x, 16))


def _shifted(x, bits):
    """The upper bits of an int32, as a number of 0 or more."""
    return ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)
