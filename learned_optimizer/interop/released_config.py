"""Which architecture the variables of a released checkpoint belong to.

The released code stored no configuration beside its variables. Names and shapes tell
most of it: the levels and their sizes, attention, what is learned. How many inputs the
parameter RNN has they tell too, but not which. Of the switches that give that many,
those are taken that differ least from the released defaults; what shapes say nothing
of at all is as in these. Whoever knows better says so.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Mapping

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import specifications

SCOPE = "LOL/"
# As in the released code, whose global RNN sees the last tensor alone.
DEFAULTS = Config(global_rnn_input="last_tensor")
# Switches of which inputs the parameter RNN sees.
INPUT_SWITCHES = (
    "gradient_products",
    "log_mean_squares",
    "relative_learning_rate",
    "extreme_indicator",
    "learning_rate_shortcut",
)
# Switches that have variables of their own, and what is in the names of these alone.
_SHOWN_BY = {
    "attention": ("attention_weights", "GradsToAttnDelta"),
    "gradient_shortcut": ("GradsToDelta", "GradsToAttnDelta"),
    "dynamic_output_scale": ("learning_rate_", "param_stepsize_offset"),
    "learnable_decay": ("scl_decay_", "inp_decay_"),
}
_CELLS = tuple(
    f"{SCOPE}{path}/BiasGRUCell/"
    for path in ("PerTensor/Layer0_RNN", "PerTensor/Layer1_RNN", "Layer2_RNN")
)


def config_of_shapes(shapes: Mapping[str, tuple], **switches) -> Config:
    """The architecture whose variables these are.

    Args:
        shapes: `{released variable name: shape}` of the scope `LOL`, without slots.
        **switches: Fields of `Config` that are known.

    Raises:
        ValueError: If there is none, or several differ as little from the defaults;
            or if variables are missing, misshapen, or of no use in it.
    """
    config = _closest_config(shapes, switches)
    specs = {spec.released_name: spec for spec in specifications(config)}
    wanted = {name: spec.shape for name, spec in specs.items()}
    missing = sorted(set(wanted) - set(shapes))
    if not config.learnable_start:
        # Then the released code draws these anew in each run and stores none.
        missing = [name for name in missing if not name.endswith("/init_vector")]
    unknown = sorted(set(shapes) - set(wanted))
    misshapen = [
        f"{name!r} of shape {tuple(shapes[name])} instead of {shape}"
        for name, shape in wanted.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    if missing or misshapen or unknown:
        raise ValueError(
            "A released checkpoint must hold the variables of one architecture. "
            f"Missing: {missing}. Misshapen: [{', '.join(misshapen)}]. "
            f"Not part of it: {unknown}. Taken for: {_differences(config)}"
        )
    return config


def _closest_config(shapes, switches) -> Config:
    """The architecture that fits what the shapes say of it, nearest to the defaults."""
    sizes = _level_sizes(shapes)
    known = {
        switch: any(part in name for name in shapes for part in parts)
        for switch, parts in _SHOWN_BY.items()
    }
    known |= {"level_sizes": sizes} | switches
    inputs = _number_of_inputs(shapes, sizes)
    timescales = _voted(
        shapes.get(f"{SCOPE}PerTensor/{name}/Matrix", ())[:1]
        for name in ("GradsToDelta", "GradsToAttnDelta")
    )
    counts = {timescales} if timescales else set(range(1, inputs + 1))
    if "gradient_timescales" in switches:
        counts &= {switches["gradient_timescales"]}
    found = {}
    for count, values in itertools.product(
        counts,
        itertools.product((True, False), repeat=len(INPUT_SWITCHES)),
    ):
        fields = dict(zip(INPUT_SWITCHES, values, strict=True))
        fields |= {"gradient_timescales": count} | known
        if not fields["dynamic_output_scale"] and (
            fields["relative_learning_rate"]
            or fields["extreme_indicator"]
            or fields["learning_rate_shortcut"]
        ):
            continue
        config = dataclasses.replace(DEFAULTS, **fields)
        if config.inputs == inputs:
            found[config] = len(_differences(config, INPUT_SWITCHES)) + (count != 4)
    if not found:
        raise ValueError(
            "The parameter RNN of a released checkpoint must have as many inputs as "
            f"some setting of {', '.join(INPUT_SWITCHES)} gives. Received: {inputs} "
            f"inputs, {timescales or 'some'} timescales, and {known}"
        )
    least = min(found.values())
    nearest = [config for config, distance in found.items() if distance == least]
    if len(nearest) > 1:
        raise ValueError(
            "Shapes do not tell which architecture a released checkpoint has: say more "
            f"of its switches. Received: {inputs} inputs of the parameter RNN, with "
            + ", or ".join(str(_differences(config)) for config in nearest)
        )
    (config,) = nearest
    if "learnable_input_decay" not in switches and config.learns_gradient_decay:
        shown = any("inp_decay_" in name for name in shapes)
        config = dataclasses.replace(config, learnable_input_decay=shown)
    return config


def _differences(config, names=None) -> dict:
    """The fields, of `names` or of all, in which `config` is not as released."""
    names = names or [field.name for field in dataclasses.fields(Config)]
    return {
        name: getattr(config, name)
        for name in names
        if getattr(config, name) != getattr(DEFAULTS, name)
    }


def _level_sizes(shapes) -> tuple[int, ...]:
    """Sizes of the levels, each from several variables, of which one may be amiss."""
    sizes = []
    for level, cell in enumerate(_CELLS):
        start = f"{SCOPE}Level{level}_RNN/init_vector"
        if not any(name.startswith(cell) or name == start for name in shapes):
            break
        gates = shapes.get(f"{cell}gates/Affine/Bias", (0,))
        sizes.append(
            _voted(
                [
                    shapes.get(f"{cell}candidate/Affine/Bias", ()),
                    [count // 2 for count in gates if count],
                    shapes.get(start, ())[1:],
                ]
            )
        )
    if not sizes or None in sizes:
        raise ValueError(
            "A released checkpoint must hold a hierarchical RNN. Missing: "
            f"'{_CELLS[len(sizes[:-1])]}candidate/Affine/Bias'. "
            f"Received: {sorted(shapes)}"
        )
    return tuple(sizes)


def _number_of_inputs(shapes, sizes) -> int:
    """Inputs of the parameter RNN, which the tensor RNN sees too."""
    rows = []
    for level, others in enumerate((0, sizes[0])[: len(sizes)]):
        for part in ("gates", "candidate"):
            shape = shapes.get(f"{_CELLS[level]}{part}/Affine/Matrix", ())
            rows.append([count - sizes[level] - others for count in shape[:1]])
    inputs = _voted([[count for count in found if count > 0] for found in rows])
    if inputs is None:
        raise ValueError(
            "A released checkpoint must hold a hierarchical RNN. Missing: "
            f"'{_CELLS[0]}gates/Affine/Matrix'. Received: {sorted(shapes)}"
        )
    return inputs


def _voted(found):
    """The commonest first number of some sequences, None where all are empty."""
    numbers = [int(numbers[0]) for numbers in found if len(numbers)]
    return statistics.mode(numbers) if numbers else None
