"""Looking inside a built optimizer: the state of its variables as arrays."""

import numpy as np
from keras import ops

from learned_optimizer.rule.layout import rows_of_blocks
from learned_optimizer.rule.state import (
    FIELDS,
    PARAMETER_FIELDS,
    fields_of,
    state_shapes,
)
from learned_optimizer.rule.tensor_level import sum_log_learning_rates


class Inspection:
    """The part of `HierarchicalRNN` that shows its state and changes nothing."""

    @property
    def skipped_steps(self) -> int:
        """How many tensor steps were left out for a gradient that is not finite."""
        self._check_is_built("skipped_steps")
        return int(ops.convert_to_numpy(self._skipped_steps))

    @property
    def global_state(self) -> np.ndarray:
        """`[20]`, the hidden state of the global RNN; `[0]` with fewer levels."""
        self._check_is_built("global_state")
        return _read_only(self._numpy_state("global_state")[:, 0])

    @property
    def learned_variables(self) -> list:
        """The model variables that it updates, in the order of its layout."""
        self._check_is_built("learned_variables")
        return [self._trainable_variables[index] for index in self._learned_indices]

    def log_learning_rates(self, variable) -> np.ndarray:
        """`[n]`, the running averages of a variable's log learning rates, read-only.

        Raises:
            ValueError: If the optimizer was not built with `variable`, or its
                architecture has no learning rates (dynamic output scale off).
        """
        tensor = self._tensor_of(variable, "log_learning_rates")
        self._check_has_rates("log_learning_rates")
        return _read_only(self._rows("log_learning_rate", tensor))

    def mean_log_learning_rate(self):
        """Scalar tensor, the mean log learning rate of all elements there are.

        For logs of the whole training: it may be called inside a compiled step.

        Raises:
            ValueError: If the optimizer is not built, or its architecture has no
                learning rates (dynamic output scale off).
        """
        self._check_is_built("mean_log_learning_rate")
        self._check_has_rates("mean_log_learning_rate")
        layout = self._layout[0]
        sums = [
            ops.sum(sum_log_learning_rates(ops.convert_to_tensor(part), layout, rows))
            for part, rows in zip(
                self._log_learning_rate, layout.shard_blocks, strict=True
            )
        ]
        return ops.sum(ops.stack(sums)) / max(1.0, float(layout.tensor_elements.sum()))

    def tensor_state(self, variable) -> np.ndarray:
        """`[20]`, the hidden state of a variable's tensor RNN, read-only."""
        tensor = self._tensor_of(variable, "tensor_state")
        return _read_only(self._numpy_state("tensor_state")[:, tensor])

    def slots(self, variable) -> dict[str, np.ndarray]:
        """The state of one model variable, elements in row-major order, read-only.

        Returns:
            A dict of `hidden_state` `[n, 10]`, `gradient_averages` `[n, S]`,
            `mean_squares` `[n, S]`, `log_learning_rate` `[n]` (absent without
            dynamic output scale) and with attention `true_value` `[n]`.

        Raises:
            ValueError: If the optimizer was not built with `variable`.
        """
        tensor = self._tensor_of(variable, "slots")
        found = {
            name: self._rows(name, tensor)
            for name in fields_of(self.config)
            if name in PARAMETER_FIELDS
        }
        if self.config.attention:
            value = ops.convert_to_numpy(self._true_values[tensor])
            found["true_value"] = value.reshape(-1)
        return {name: _read_only(array) for name, array in found.items()}

    def _check_has_rates(self, wanted):
        if not self.config.dynamic_output_scale:
            raise ValueError(
                f"`{wanted}` needs an architecture that has learning rates. Received: "
                f"weights {self.weights.name!r} with dynamic_output_scale=False"
            )

    def _rows(self, name, tensor):
        # Only this tensor's blocks leave the device.
        layout = self._layout[0]
        wanted = layout.blocks_of(tensor)
        parts = [
            ops.convert_to_numpy(
                ops.convert_to_tensor(variable)[
                    :, max(wanted.start - rows.start, 0) : wanted.stop - rows.start
                ]
            )
            for variable, rows in zip(
                getattr(self, f"_{name}"), layout.shard_blocks, strict=True
            )
            if rows.start < wanted.stop and wanted.start < rows.stop
        ]
        if parts:
            rows = rows_of_blocks(np.concatenate(parts, axis=1), layout.shapes[tensor])
        else:
            rows = np.zeros((0, FIELDS[name].width(self.config)), np.float32)
        rows = rows.astype(np.float32)
        return rows[:, 0] if FIELDS[name].is_number else rows

    def _numpy_state(self, name):
        if name not in fields_of(self.config):
            return np.zeros(
                state_shapes(self._layout[0], self.config)[name], np.float32
            )
        return ops.convert_to_numpy(getattr(self, f"_{name}"))

    def _tensor_of(self, variable, what):
        self._check_is_built(what)
        self._check_variables_are_known([variable])
        return self._learned_indices.index(self._get_variable_index(variable))

    def _check_is_built(self, what):
        if not self.built:
            raise ValueError(
                f"`{what}` needs an optimizer that was built: call "
                "`optimizer.build(variables)`, or train a step. Received: not built"
            )


def _read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.flags.writeable = False
    return array
