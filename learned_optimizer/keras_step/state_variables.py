"""The variables of a `HierarchicalRNN`, and how a step is told of them."""

import contextlib
import functools
import math
import sys

import keras
import numpy as np
from keras import ops

from learned_optimizer.keras_step import model_step, state_io
from learned_optimizer.keras_step.arguments import check_dtypes, check_shapes
from learned_optimizer.keras_step.device_memory import check_memory
from learned_optimizer.keras_step.model_layout import model_layout, runs_by_chunks
from learned_optimizer.rule.gradients import Clipping
from learned_optimizer.rule.half_precision import HALF_FIELDS
from learned_optimizer.rule.state import (
    PARAMETER_FIELDS,
    fields_of,
    initial_field,
    state_shapes,
)

# What half precision would round away a little of at every step, by the ends of the
# names that `add_variable_from_reference` makes.
_AT_LEAST_FLOAT32 = ("_gradient_accumulator", "_true_value")


@functools.cache
def _named_in_files(variable_class):
    """A class of variables to which `load_own_variables` of Keras assigns nothing."""

    class NamedInFiles(variable_class):
        def assign(self, value):
            # `HierarchicalRNN` has its own, so it is that of an optimizer around it.
            by_position = keras.optimizers.Optimizer.load_own_variables.__code__
            if sys._getframe(1).f_code is by_position:
                return self
            return super().assign(value)

    return NamedInFiles


class StateVariables:
    """The part of `HierarchicalRNN` that creates its variables and hands them on."""

    def build(self, variables):
        """Creates the state of `variables`, packed; see `rule/state.py`.

        A state that was loaded before is taken if it fits.
        """
        if self.built:
            return
        # Outside a function that is being traced, one step can assign to what is made,
        # and nothing is traced a second time because it makes variables.
        with self._runner[0].eagerly() if self._runner else contextlib.nullcontext():
            self._create_variables(variables)
            if self.state_to_load:
                state_io.load_kept(self)

    def _create_variables(self, variables):
        variables = list(variables)
        check_shapes(variables)
        check_dtypes(variables)
        if self._runner:
            self._runner[0].check_variables(variables)
        learned = [
            index
            for index, variable in enumerate(variables)
            if not self._overwrite_variable_with_gradient(variable)
        ]
        layout = model_layout(
            [tuple(variables[index].shape) for index in learned],
            in_chunks=runs_by_chunks(),
        )
        check_memory(layout, self.config, self.state_dtype)
        super().build(variables)
        self._layout = (layout,)
        self._learned_indices = tuple(learned)
        self._add_state_variables(layout)
        if self.config.nominal:
            total_steps = self.total_steps or 0
            options = dict(
                shape=(),
                dtype="int32",
                initializer=lambda shape, dtype: ops.full(shape, total_steps, dtype),
                name="total_steps",
            )
            self._horizon.variable = (
                keras.Variable(trainable=False, **options)
                if self._runner
                else self.add_variable(**options)
            )
        self._skipped_steps = self.add_variable(
            shape=(), dtype="int32", initializer="zeros", name="skipped_steps"
        )
        if self.config.attention:
            self._true_values = [
                self.add_variable_from_reference(
                    variables[index],
                    name="true_value",
                    initializer=lambda shape, dtype=None, index=index: ops.cast(
                        self._read_now(variables[index]), dtype
                    ),
                )
                for index in learned
            ]

    @property
    def variables(self):
        """What steps change, a list.

        Meta-parameters are not in it, so that who sets all variables to 0, to start
        again, keeps them; `reset` does that better.
        """
        if not self.built:
            return self._variables[:]
        constant = {id(variable) for variable in self.meta_variables}
        return [v for v in self._variables if id(v) not in constant]

    @property
    def meta_variables(self):
        """The variables of the meta-parameters, a list; empty before `build`."""
        if not self.built:
            return []
        return [getattr(self, f"_meta_{name}") for name in self.weights.meta_parameters]

    def _track_variable(self, variable):
        """As Keras's; what is tracked can be assigned to by `load_own_variables` alone.

        A `LossScaleOptimizer` reads from a file by position what its inner optimizer
        reads by name. That would fail where they differ, or half change the state. It
        asks nobody, so the variables themselves must know who assigns.
        """
        variable.__class__ = _named_in_files(type(variable))
        super()._track_variable(variable)

    def add_variable(self, shape, initializer="zeros", dtype=None, **options):
        """As Keras's; sums and true values of half precision are float32."""
        is_half = dtype is not None and keras.backend.standardize_dtype(dtype) in (
            "float16",
            "bfloat16",
        )
        if is_half and str(options.get("name")).endswith(_AT_LEAST_FLOAT32):
            dtype = "float32"
        return super().add_variable(shape, initializer, dtype, **options)

    def _read_now(self, variable):
        """A variable's value, even while a function is traced that builds us."""
        if self._runner:
            return self._runner[0].read_now(variable)
        return ops.copy(ops.convert_to_tensor(variable))

    def _add_state_variables(self, layout):
        """One variable a field of the state, a list of them where it has shards."""

        def add(name, value, shape, dtype="float32"):
            return self.add_variable(
                shape=shape,
                # A copy, since PyTorch cannot write to a broadcast array.
                initializer=lambda shape, dtype=None: ops.copy(
                    ops.cast(value(), dtype)
                ),
                dtype=dtype,
                name=name,
            )

        shapes = state_shapes(layout, self.config)
        meta_parameters = self.weights.meta_parameters
        for name, start in self._starts(layout, meta_parameters).items():
            if isinstance(start, list):
                variables = []
                dtype = self.state_dtype if name in HALF_FIELDS else "float32"
                for index, rows in enumerate(layout.shard_blocks):
                    shape = (shapes[name][0], rows.stop - rows.start, shapes[name][2])
                    variables.append(add(f"{name}_{index}", start[index], shape, dtype))
            else:
                variables = add(name, start, shapes[name])
            setattr(self, f"_{name}", variables)
        for name, value in meta_parameters.items():
            variable = add(
                f"meta_{name}",
                lambda value=value: ops.convert_to_tensor(value),
                value.shape,
            )
            setattr(self, f"_meta_{name}", variable)

    def _starts(self, layout, meta_parameters):
        """`{field: function of nothing}`, a list of them, one a shard, of parameters.

        Their results are the state before the first step.
        """
        rates = self._initial_log_learning_rates(layout)

        def start(name, rows):
            drawn = rates if isinstance(rates, float) else rates[:, rows]
            return lambda: initial_field(
                name, layout.rows(rows), meta_parameters, self.config, drawn
            )

        return {
            name: [start(name, rows) for rows in layout.shard_blocks]
            if name in PARAMETER_FIELDS
            else start(name, slice(None))
            for name in fields_of(self.config)
        }

    def _initial_log_learning_rates(self, layout):
        """The log of the initial rate: a number, or drawn `[1, blocks, size]`."""
        start = self.initial_learning_rate
        if start is None:
            start = self.weights.initial_learning_rate
        if not isinstance(start, (tuple, list)):
            return math.log(start)
        low, high = (math.log(bound) for bound in start)
        generator = np.random.default_rng(self.seed)
        half = (high - low) / 2
        shape = (len(layout.block_tensor), layout.block_size)
        elements = generator.uniform(0, half, shape).astype(np.float32)
        tensors = generator.uniform(0, half, layout.num_tensors).astype(np.float32)
        return (low + elements + tensors[layout.block_tensor][:, None])[None]

    def step_spec(self, present) -> model_step.StepSpec:
        """What `model_step` needs to know before it runs.

        Args:
            present: Positions in the layout of the tensors that have a gradient.
        """
        learned = self.learned_variables
        decay = None
        if self.weight_decay is not None:
            decays = [self.weight_decay * self._use_weight_decay(v) for v in learned]
            decay = np.array(decays, np.float32)
        limits = [getattr(self, name) for name in Clipping._fields]
        # As in Keras, 0 and less clip nothing.
        limits = [x if x is not None and x > 0 else None for x in limits]
        return model_step.StepSpec(
            layout=self._layout[0],
            config=self.config,
            present=present,
            weight_decay=decay,
            clipping=Clipping(*limits),
            loss_scale_factor=self.loss_scale_factor,
            accumulation_steps=self.gradient_accumulation_steps,
            ema_momentum=self.ema_momentum if self.use_ema else None,
            ema_overwrite_frequency=self.ema_overwrite_frequency,
            constraints=tuple(getattr(v, "constraint", None) for v in learned),
        )

    def step_variables(self, trainable_variables) -> model_step.Variables:
        """The variables that `model_step` reads and writes."""

        def learned(variables):
            return [variables[index] for index in self._learned_indices]

        return model_step.Variables(
            values=learned(trainable_variables),
            true_values=list(self._true_values) if self.config.attention else [],
            averages=learned(self._model_variables_moving_average)
            if self.use_ema
            else [],
            accumulators=learned(self._accumulated_gradients)
            if self.gradient_accumulation_steps
            else [],
            state={name: getattr(self, f"_{name}") for name in fields_of(self.config)},
            meta_parameters={
                name: getattr(self, f"_meta_{name}")
                for name in self.weights.meta_parameters
            },
            skipped_steps=self._skipped_steps,
            total_steps=[self._horizon.variable] if self.config.nominal else [],
        )
