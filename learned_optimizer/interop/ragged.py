"""The update rule on tensors in ragged form: flat arrays, and lengths that are data.

The tensors lie flattened behind one another, so that one program serves any number of
them, of any shapes. This is what a SavedModel computes (`saved_model.py`): arrays in,
arrays out, and a state under names that says all about the past. Nothing needs the
values beforehand: what follows from those at the start is found at the first update.
"""

from keras import ops

from learned_optimizer.rule.config import Config
from learned_optimizer.rule.gradients import Clipping
from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.nominal_rate import Horizon, mean_squares
from learned_optimizer.rule.state import State, fields_of, initial_state, state_shapes
from learned_optimizer.rule.update_rule import compute_step, none_has_started

TRUE_VALUES = "true_values"
# `[2]`: updates of the whole training, 0 where that is not known, and those made.
HORIZON = "horizon"


def flat_shapes(config: Config, elements, tensors) -> dict[str, tuple]:
    """`{name: shape}` of the state that an architecture has.

    Whatever stands for the number of all elements and of tensors is in the shapes.
    """
    rows = {"parameter": (elements,), "tensor": (tensors,), "problem": ()}
    found = {
        name: (() if field.is_number else (field.width(config),)) + rows[field.level]
        for name, field in fields_of(config).items()
    }
    if config.attention:
        found[TRUE_VALUES] = (elements,)
    if config.nominal:
        found[HORIZON] = (2,)
    return found


def initial(
    row_lengths, initial_learning_rate, meta_parameters, config, total_steps=0
) -> dict:
    """The state before the first update, `{name: array}` as `flat_shapes` has it.

    `row_lengths`, `[tensors]`, says how many elements each tensor has, 0 or more. The
    learned rates start at a positive number, or at one for each of `[elements]`. Of
    `total_steps`, the updates of the whole training, 0 says that they are not known.
    """
    elements = ops.sum(ops.cast(row_lengths, "int32"))
    layout = Layout.from_row_lengths(row_lengths, elements)
    rates = ops.broadcast_to(ops.log(initial_learning_rate), (elements,))
    state = initial_state(layout, meta_parameters, config, rates[None, :, None])
    horizon = ops.stack([ops.cast(total_steps, "float32"), ops.zeros(())])
    return _flat(state, ops.zeros((elements,), "float32"), horizon, config)


def update(
    gradients, values, row_lengths, learning_rate, state, meta_parameters, config
) -> dict:
    """The new state after one step of all tensors, and with it the new `values`.

    A tensor whose gradient is not finite keeps its values and its state. Gradients and
    values are `[elements]` float32, the former taken at the latter, which the model
    holds: with attention the attended location; the parameters proper are in the state.
    `row_lengths`, `[tensors]`, add up to `elements`.
    """
    layout = Layout.from_row_lengths(row_lengths, ops.shape(values)[0])
    packed = _packed(state, layout, config)
    squares = horizon = None
    if config.nominal:
        squares = mean_squares(values[:, None], layout)
        horizon = state[HORIZON]
    step = compute_step(
        gradients[:, None],
        packed,
        layout,
        meta_parameters,
        config,
        learning_rate=learning_rate,
        clipping=Clipping(),
        mean_squares=squares,
        horizon=None if horizon is None else Horizon(horizon[0], horizon[1]),
    )
    if horizon is not None:
        horizon = horizon + ops.convert_to_tensor([0.0, 1.0])
    true_values = values
    if config.attention:
        is_first = ops.logical_and(
            none_has_started(packed._asdict()), ops.max(step.active) > 0
        )
        true_values = ops.where(is_first, values, state[TRUE_VALUES])
    new_true_values = true_values - step.step[:, 0]
    new_values = new_true_values
    if config.attention:
        keep = ops.take(step.active, layout.block_tensor, axis=0) > 0
        new_values = ops.where(keep, true_values - step.attended_step[:, 0], values)
    return {"values": new_values, **_flat(step.state, new_true_values, horizon, config)}


def _packed(state, layout, config) -> State:
    """The fields as the update rule has them."""
    shapes = state_shapes(layout, config)
    return State(
        **{name: ops.reshape(state[name], shapes[name]) for name in fields_of(config)}
    )


def _flat(state: State, true_values, horizon, config) -> dict:
    """The reverse of `_packed`, with what else there is."""
    fields = {**state._asdict(), TRUE_VALUES: true_values, HORIZON: horizon}
    return {
        name: ops.reshape(fields[name], shape)
        for name, shape in flat_shapes(config, -1, -1).items()
    }
