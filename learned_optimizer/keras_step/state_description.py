"""What a saved state says of itself: the architecture and the variables it is of."""

import json

import numpy as np
from keras import ops

from learned_optimizer.rule.config import Config
from learned_optimizer.weights import ALIASES, list_weights, load_weights

FORMAT = "learned_optimizer/1"


def description_of(optimizer) -> dict:
    """What `save` writes of an optimizer, as JSON types."""
    if not optimizer.built:
        return {"format": FORMAT}
    layout = optimizer._layout[0]
    return {
        "format": FORMAT,
        "config": optimizer.config.to_dict(),
        "block_size": layout.block_size,
        "shapes": [list(shape) for shape in layout.shapes],
        # Of the model's variables, in the order of `shapes`; none without any, where
        # the layout has one tensor without elements.
        "paths": [getattr(v, "path", v.name) for v in optimizer.learned_variables],
    }


def has_taken_steps(optimizer) -> bool:
    """Whether it was called, or holds the state of one that was."""
    return int(ops.convert_to_numpy(optimizer._iterations)) > 0


def read_description(optimizer, array) -> dict:
    """What a state says of itself, which must be of this architecture."""
    try:
        saved = json.loads(bytes(np.asarray(array, np.uint8)).decode())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The description in a state must be JSON. Received: {error}"
        ) from error
    if not isinstance(saved, dict):
        raise ValueError(
            f"The description in a state must be an object. Received: {saved!r}"
        )
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"The format of a state must be {FORMAT!r}, that of this package. "
            f"Received: {saved.get('format')!r}"
        )
    if "shapes" not in saved:
        if optimizer.built and has_taken_steps(optimizer):
            raise ValueError(
                "A state must be of an optimizer that was built. Received: one of an "
                "optimizer that was not"
            )
        return saved
    # A state that was saved before a switch existed has it off.
    config = read_config(saved.get("config")).to_dict()
    if config != optimizer.config.to_dict():
        raise ValueError(
            "A state must be of the architecture of the optimizer's weights: "
            f"{optimizer.config.to_dict()}. Received: {config}{weights_hint(config)}"
        )
    block_size = saved.get("block_size")
    if type(block_size) is not int or block_size < 1:
        raise ValueError(
            "The description in a state must have a positive integer "
            f"'block_size'. Received: {block_size!r}"
        )
    _check_variables_described(saved)
    return saved


def _check_variables_described(saved):
    """Refuses a description whose shapes and paths are not lists of such."""
    shapes, paths = saved["shapes"], saved.get("paths", [])
    are_shapes = isinstance(shapes, list) and all(
        isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        for shape in shapes
    )
    are_paths = isinstance(paths, list) and all(isinstance(p, str) for p in paths)
    if not are_shapes or not are_paths or len(paths) not in (0, len(shapes)):
        raise ValueError(
            "The description in a state must have a list of 'shapes' and, if any, a "
            f"path of each in 'paths'. Received: {shapes!r} and {paths!r}"
        )


def read_config(values) -> Config:
    """The architecture that a state's description names, a dict.

    Raises:
        ValueError: It is none of this package.
    """
    try:
        return Config.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "The 'config' in a state's description must be one of this package. "
            f"Received: {error}"
        ) from error


def weights_hint(config) -> str:
    """The end of a message: which shipped weights have this architecture, if any do.

    The architecture is a dict, from `Config.to_dict`.
    """
    fitting = [
        repr(name)
        for name in list_weights()
        if name not in ALIASES and load_weights(name).config.to_dict() == config
    ]
    if not fitting:
        return ""
    return (
        ", the architecture of shipped weights: make the optimizer with "
        f"`weights={' or '.join(fitting)}`"
    )
