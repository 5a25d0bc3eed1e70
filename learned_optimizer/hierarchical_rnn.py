"""`HierarchicalRNN`, the learned optimizer as a Keras optimizer.

What is here: its arguments, its steps and its configuration. Its variables are made in
`state_variables.py`. The update rule itself is `update_rule.py`; how it is run on model
variables, with clipping, accumulation, averaging and constraints, is `model_step.py`;
what TensorFlow and `tf.distribute` need around that is `tensorflow_runner.py`.
"""

import warnings

import keras
import numpy as np
from keras import ops

from learned_optimizer.keras_step import model_step, state_io
from learned_optimizer.keras_step.arguments import (
    SmallLearningRateWarning,
    check_pairs,
    checked_jit_compile,
    checked_seed,
    checked_start,
    checked_state_dtype,
    resolved_weights,
    warn_of_small_rate,
)
from learned_optimizer.keras_step.inspection import Inspection
from learned_optimizer.keras_step.state_variables import StateVariables
from learned_optimizer.keras_step.total_steps import TotalSteps
from learned_optimizer.utils.backend import check_backend
from learned_optimizer.weights import Weights


def _as_written(function):
    """Keeps AutoGraph out of a method, as it keeps itself out of Keras's own.

    In a custom loop, to convert all that a step calls took a third of the tracing. For
    PyTorch it keeps `torch.compile` out, which would take minutes for the rule.
    """
    if keras.backend.backend() == "torch":
        import torch

        return torch.compiler.disable(function)
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


@keras.saving.register_keras_serializable(package="learned_optimizer")
class HierarchicalRNN(
    StateVariables, TotalSteps, Inspection, keras.optimizers.Optimizer
):
    """Optimizer that was learned: a hierarchy of small RNNs computes the update.

    Each parameter has a recurrent network of its own (all share their weights),
    each tensor and the whole model have one above it. They were meta-trained on
    many small problems; the number of things to tune here is zero. Choose it
    where tuning a learning rate costs more than a slower step does: it takes
    about 1,500 floating-point operations and 76 bytes of state a parameter,
    which a large batch hides and a small one does not.

    Example:
    >>> model.compile(optimizer=HierarchicalRNN(), loss="mse")

    Args:
        learning_rate: A float, a schedule or a callable that multiplies the
            learned step. Defaults to `1.0`, the optimizer as it was trained.
        initial_learning_rate: Where the learned per-parameter learning rates
            start: a positive number, or a range `(low, high)`, from which half
            of the log range is drawn for each element and half once a tensor.
            Defaults to what the weights' card says. Weights with a nominal learning
            rate (`default` has one; see `learned_optimizer.rule.nominal_rate`) forget
            it within some hundred steps.
        weights: Name of shipped weights (see `learned_optimizer.list_weights()`),
            path of an `.npz` file with its card beside it or of a SavedModel that
            `export` wrote, `Weights`, or `None` for fresh, untrained ones. The
            architecture comes with them. Defaults to `"default"`.
        seed: Seed of whatever is drawn: the range of initial learning rates,
            fresh weights. Defaults to `None`.
        weight_decay: Decoupled: `weight_decay * learning_rate * exp(eta + c) *
            value` is taken off each parameter, where `exp(eta + c)` is the step
            length the optimizer has learned for that parameter (1 in
            architectures without dynamic output scale). So the decay follows a
            parameter's own step length as AdamW's follows its learning rate.
            Defaults to `None`.
        clipnorm: Clips the gradient of each tensor to this norm.
        clipvalue: Clips each element of the gradients to this size.
        global_clipnorm: Clips all gradients to this global norm, taken over the
            tensors whose gradients are finite.
        use_ema: Whether to keep an exponential moving average of the parameters.
        ema_momentum: Its momentum. Defaults to `0.99`.
        ema_overwrite_frequency: Overwrite the parameters by their average every
            so many steps. Defaults to `None`, only at the end of `fit`.
        loss_scale_factor: Scale of the loss, taken off the gradients.
        gradient_accumulation_steps: Update once in so many calls, on the mean of
            their gradients. Defaults to `None`.
        name: Name of the optimizer. Defaults to `"hierarchical_rnn"`.
        jit_compile: Whether XLA compiles the step, under TensorFlow: `True`, `False`,
            or `"auto"`, from 20,000 parameters on, where it soon pays. Keras tells an
            optimizer nothing of `model.compile(jit_compile=...)`. Defaults to `"auto"`.
        total_steps: How many updates the whole training will make. Given that, the
            nominal learning rate follows a schedule over it to its end, where it
            stays. `learned_optimizer.SetTotalSteps` finds it out in `fit`. Defaults to
            `None`: not known, and good at any time.
        state_dtype: Type of the hidden states, averages and mean squares, which are
            nearly all of the state: `"float32"`, or `"bfloat16"`, which takes 40 bytes
            a parameter for 76. Numbers are rounded to it up or down at random, by a
            hash of the step. Defaults to `"float32"`.

    A tensor whose gradient is not finite is left as it is, its state too, and
    `skipped_steps` counts it. With weights that use attention the model's
    variables hold the attended location while it trains; `fit` ends with the true
    parameters in place, and `learned_optimizer.SwapTrueValues` puts them there
    for validation and saving in between. The true ones live in the optimizer:
    values assigned to the model from outside do not reach them.

    Raises:
        ValueError: If an argument, the weights or a variable break a rule.
        TypeError: If variables are not of real floating-point numbers.

    Reference:

    - Wichrowska et al., *Learned Optimizers that Scale and Generalize*, ICML
      2017, [arXiv:1703.04813](https://arxiv.org/abs/1703.04813), and its
      released code.
    """

    def __init__(
        self,
        learning_rate=1.0,
        initial_learning_rate=None,
        weights="default",
        seed=None,
        weight_decay=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name="hierarchical_rnn",
        jit_compile="auto",
        total_steps=None,
        state_dtype="float32",
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.seed = checked_seed(seed)
        self.state_dtype = checked_state_dtype(state_dtype)
        self.jit_compile = checked_jit_compile(jit_compile)
        self.initial_learning_rate = checked_start(initial_learning_rate)
        # A tuple keeps Keras from tracking what is inside as variables.
        self._loaded_weights = (resolved_weights(weights, self.seed),)
        # What `state_io.load` keeps until the optimizer is built.
        self.state_to_load = ()
        warn_of_small_rate(learning_rate)
        self._init_total_steps(total_steps)
        if total_steps:
            self._warn_of_a_schedule()
        self._runner = None
        if keras.backend.backend() == "tensorflow":
            from learned_optimizer.keras_step.checkpoint_config import CheckpointConfig
            from learned_optimizer.keras_step.tensorflow_runner import TensorFlowRunner

            self._runner = (TensorFlowRunner(self),)
            # Tracked, since it is an attribute.
            self._checkpoint_config = CheckpointConfig(self.config, self)

    @property
    def weights(self) -> Weights:
        """The meta-parameters as they were loaded, with their card."""
        return self._loaded_weights[0]

    @property
    def _weights(self):
        """Refuses `compile` of a tf_keras model, which reads this of any optimizer."""
        raise TypeError(
            "HierarchicalRNN must be compiled into a model of Keras 3 (`import keras`, "
            "or `tf.keras` without TF_USE_LEGACY_KERAS). Received: a model of "
            "tf_keras, which is Keras 2. For TensorFlow Model Garden, which is written "
            "on it, there is `learned_optimizer.model_garden`"
        )

    @property
    def config(self):
        """The architecture, a `learned_optimizer.Config`."""
        return self.weights.config

    # Steps.

    @_as_written
    def apply(self, grads, trainable_variables=None):
        """Updates the variables by their gradients, as Keras's `Optimizer.apply`.

        Args:
            grads: A gradient a variable: dense, IndexedSlices or None.
            trainable_variables: The variables; None: those it was built with.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "`apply` without variables needs an optimizer that was built: "
                    "call `optimizer.build(variables)` first. Received: "
                    f"{len(grads)} gradients and no variables"
                )
            trainable_variables = self._trainable_variables
        trainable_variables = list(trainable_variables)
        if len(grads) != len(trainable_variables):
            raise ValueError(
                "`apply` needs a gradient, or None, for each variable. Received: "
                f"{len(grads)} gradients and {len(trainable_variables)} variables"
            )
        check_pairs(grads, trainable_variables)
        if not self.built:
            with keras.name_scope(self.name):
                self.build(trainable_variables)
        self._check_variables_are_known(trainable_variables)
        with keras.name_scope(self.name):
            grads, trainable_variables = self._filter_empty_gradients(
                grads, trainable_variables
            )
            overwrite = self._overwrite_variables_directly_with_gradients
            grads, trainable_variables = overwrite(grads, trainable_variables)
            if len(grads):
                self._backend_apply_gradients(grads, trainable_variables)
        self._iterations.assign_add(1)

    def _backend_apply_gradients(self, grads, trainable_variables):
        """Runs `model_step` where the backend wants it."""
        positions = {
            index: position for position, index in enumerate(self._learned_indices)
        }
        present = tuple(
            positions[self._get_variable_index(variable)]
            for variable in trainable_variables
        )
        if self._runner:
            self._runner[0].run(grads, trainable_variables, present)
            return
        spec = self.step_spec(present)
        with model_step.without_gradients():
            model_step.run(
                spec,
                self.step_variables(self._trainable_variables),
                [ops.convert_to_tensor(gradient) for gradient in grads],
                ops.cast(self._get_current_learning_rate(), "float32"),
                ops.convert_to_tensor(self._iterations),
            )

    def reset(self):
        """Starts again, as an optimizer that has not taken a step.

        The state of all variables and of the whole becomes what it was when the
        optimizer was built, averages and accumulated gradients are dropped, and
        `iterations` and `skipped_steps` are 0. The learning rate, other arguments and
        the meta-parameters stay. With weights that use attention, the variables'
        values as they are now become the true ones.

        Call it between steps, not inside a compiled function. Of a model in mixed
        precision it is `model.optimizer.inner_optimizer.reset()`.
        """
        self.state_to_load = ()
        self._iterations.assign(0)
        if not self.built:
            return
        variables = self.step_variables(self._trainable_variables)
        # Those of a file that was loaded may not be those of `weights`.
        meta_parameters = {
            name: ops.convert_to_tensor(value)
            for name, value in variables.meta_parameters.items()
        }
        for name, start in self._starts(self._layout[0], meta_parameters).items():
            if isinstance(start, list):
                for variable, value in zip(variables.state[name], start, strict=True):
                    variable.assign(value())
            else:
                variables.state[name].assign(start())
        zeros = [*variables.averages, *variables.accumulators]
        for variable in [variables.skipped_steps, *zeros]:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        for variable, true_value in self.pairs_with_true_values():
            model_step.assign_copy(true_value, variable)

    # Values of the model's variables.

    def finalize_variable_values(self, var_list):
        """Puts the true parameters, or their average, into the model, as `fit` ends."""
        if not self.built:
            return  # `fit` took no step.
        # Not `var_list`: a layer may have been frozen since.
        variables = self.step_variables(self._trainable_variables)
        final_values = variables.averages or variables.true_values
        if not final_values:
            return
        for variable, value in zip(variables.values, final_values, strict=True):
            model_step.assign_copy(variable, value)

    def pairs_with_true_values(self) -> list:
        """`(variable, true value)` of each learned variable; none without attention."""
        if not self.config.attention:
            return []
        return list(zip(self.learned_variables, self._true_values, strict=True))

    # Saving.

    def export(self, path):
        """Writes a SavedModel that computes the learned update, for any tensors.

        It holds the meta-parameters as they are now, and no state; it needs neither
        this package nor Keras nor Python. `HierarchicalRNN(weights=path)` reads them
        back. See `docs/export.md`. Needs the TensorFlow backend.

        Of the arguments of this optimizer it holds `weights` alone. Both learning rates
        are inputs of the SavedModel; clipping, weight decay, the scale of the loss,
        accumulation and averages are up to the program that calls it. A warning names
        those that are set here.

        Args:
            path: A local folder: new, empty, or an earlier export, which is replaced.

        Returns:
            The folder, a `pathlib.Path`.

        Raises:
            ValueError: If something else is there, or the backend is another.
        """
        check_backend()
        # It imports TensorFlow, which need not be installed under other backends.
        from learned_optimizer.interop.saved_model_files import export_optimizer

        # Not those of a subclass, which may need arguments.
        return export_optimizer(self, path, HierarchicalRNN().get_config())

    def __reduce__(self):
        """What `copy` and `pickle` make of it: as of Keras's own, one not built."""
        return type(self).from_config, (self.get_config(),)

    def save_own_variables(self, store):
        """Writes all variables by name, with the layout of what is packed."""
        state_io.save(self, store)

    def load_own_variables(self, store):
        """Reads what `save_own_variables` wrote, repacked where layouts differ.

        If it is not built, it keeps the state and takes it when it is. A state that
        does not fit makes an optimizer that has taken no step start afresh, with a
        warning. Of a state for some of the variables, these are taken: see
        `docs/keras.md`.

        Raises:
            ValueError: If the optimizer has taken steps and the state does not fit;
                then nothing was changed.
        """
        state_io.load(self, store)

    def set_weights(self, weights):
        """Assigns arrays, one for each of `variables`, all or none.

        Raises:
            ValueError: If the optimizer is not built, or they are of other shapes.
        """
        wanted = [tuple(variable.shape) for variable in self.variables]
        given = [tuple(np.shape(array)) for array in weights]
        if not self.built or given != wanted:
            raise ValueError(
                "`set_weights` must be called on an optimizer that was built, with "
                f"arrays of the shapes {wanted}. Received: arrays of the shapes {given}"
            )
        for variable, array in zip(self.variables, weights, strict=True):
            variable.assign(array)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """An optimizer of these arguments, for which no warning is repeated."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SmallLearningRateWarning)
            return super().from_config(config, custom_objects)

    def get_config(self):
        """The arguments; weights that are not shipped come with their numbers."""
        start = self.initial_learning_rate
        return {
            **super().get_config(),
            "initial_learning_rate": list(start) if isinstance(start, tuple) else start,
            "weights": self.weights.name
            if self.weights.shipped
            else self.weights.to_dict(),
            "seed": self.seed,
            "jit_compile": self.jit_compile,
            "total_steps": self._given_total_steps,
            "state_dtype": self.state_dtype,
        }
