"""What `HierarchicalRNN` should do to a model, computed by hand.

The rule is that in plain NumPy (`rule/numpy_rule.py`), which shares no code with the
package's; what is around it is here. A tensor that takes no part in a step is left out.
"""

import dataclasses
import warnings
from typing import Any

import keras
import numpy as np

from learned_optimizer import HierarchicalRNN, Weights, fresh_weights, load_weights
from learned_optimizer.rule.config import Config
from tests.arrays import assert_close
from tests.learned_optimizer.rule import numpy_rule

SHAPES = ((4, 3), (5,), (), (2, 1))
SIZES = tuple(int(np.prod(shape)) for shape in SHAPES)
# Large enough for a step to stand out of the rounding of a parameter.
INITIAL_LEARNING_RATE = 0.05


def perturbed_weights(seed=0, **switches) -> Weights:
    """Fresh weights with every number moved, so that nothing is zero or shared."""
    config = Config(**switches)
    weights = fresh_weights(config, seed)
    generator = np.random.default_rng(seed)
    moved = {
        name: np.float32(value + 0.1 * generator.standard_normal(np.shape(value)))
        for name, value in weights.meta_parameters.items()
    }
    return dataclasses.replace(weights, name="perturbed", meta_parameters=moved)


def make_optimizer(**arguments) -> HierarchicalRNN:
    """The optimizer, with steps that stand out of rounding unless told otherwise."""
    return HierarchicalRNN(
        **{"initial_learning_rate": INITIAL_LEARNING_RATE, **arguments}
    )


def make_variables(problem, dtype="float32"):
    """Variables that start at a problem's parameters."""
    return [keras.Variable(value, dtype=dtype) for value in problem.values]


def apply_all(optimizer, variables, gradients):
    """Applies lists of arrays (None: no gradient), one list a step."""
    for step in gradients:
        tensors = [
            None
            if gradient is None
            else keras.ops.cast(keras.ops.convert_to_tensor(gradient), variable.dtype)
            for gradient, variable in zip(step, variables, strict=True)
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")
            optimizer.apply(tensors, variables)


@dataclasses.dataclass
class OptimizerByHand:
    """A learned optimizer on a list of NumPy arrays; its arguments, and:

    Attributes:
        values: The parameters proper.
        attended: Where the next gradient is to be taken.
        averages: Their moving averages, None before the first call.
        states: A dict a tensor, see `numpy_rule.initial_tensor`.
        global_state: `[20]`.
        skipped_steps: Tensor steps left out for a non-finite gradient.
    """

    values: list
    weights: Weights | None = None
    initial_learning_rate: float | list = INITIAL_LEARNING_RATE
    learning_rate: Any = 1.0
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    weight_decay: float | None = None
    excluded_from_weight_decay: tuple = ()
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    gradient_accumulation_steps: int | None = None
    constraints: list | None = None
    total_steps: int | None = None

    def __post_init__(self):
        self.weights = self.weights or load_weights("default")
        self.config = self.weights.config
        self.values = [np.array(value, np.float32) for value in self.values]
        self.attended = [value.copy() for value in self.values]
        self.accumulation_steps = self.gradient_accumulation_steps or 1
        self.averages = None
        self.sums = [np.zeros_like(value) for value in self.values]
        self.calls = self.skipped_steps = 0
        self.meta_parameters = numpy_rule.float64(self.weights.meta_parameters)
        rates = self.initial_learning_rate
        if not isinstance(rates, list):
            rates = [np.log(rates)] * len(self.values)
        sizes = numpy_rule.log_sizes(self.values, self.config.nominal)
        self.states = [
            numpy_rule.initial_tensor(
                self.meta_parameters, self.config, value.size, rate, size
            )
            for value, rate, size in zip(self.values, rates, sizes, strict=True)
        ]
        self.global_state = numpy_rule.initial_global_state(
            self.meta_parameters, self.config
        )

    def call(self, gradients):
        """What one `apply` of the optimizer should do; None: no gradient."""
        present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        for i in present:
            self.sums[i] = self.sums[i] + np.asarray(gradients[i], np.float32)
        if (self.calls + 1) % self.accumulation_steps == 0:
            self._step(present)
        self._average()
        self.calls += 1

    def _step(self, present):
        means = {i: self.sums[i] / np.float32(self.accumulation_steps) for i in present}
        # Those of tensors that have no gradient in this call, too.
        self.sums = [np.zeros_like(total) for total in self.sums]
        active = [i for i in present if np.all(np.isfinite(means[i]))]
        self.skipped_steps += len(present) - len(active)
        if not active:
            return
        gradients = self._clipped([means[i] for i in active])
        rate = self.learning_rate
        rate = np.float32(rate(self.calls) if callable(rate) else rate)
        self.global_state = numpy_rule.step(
            self.meta_parameters,
            self.config,
            [self.states[i] for i in active],
            self.global_state,
            [gradient.reshape(-1) for gradient in gradients],
            self.total_steps or 0,
        )
        for i in active:
            state, old = self.states[i], self.values[i]
            decay = 0.0 if i in self.excluded_from_weight_decay else self.weight_decay
            decay = (decay or 0.0) * state["step_length"] * old.reshape(-1)
            step = (state["step"] + decay).reshape(old.shape)
            attended_step = state["attended_step"].reshape(old.shape)
            new = old - rate * step
            if self.constraints is not None:
                new = np.asarray(self.constraints[i](new))
            attended = old - rate * attended_step if self.config.attention else new
            self.values[i] = np.float32(new)
            self.attended[i] = np.float32(attended)

    def _clipped(self, gradients):
        norms = [np.linalg.norm(gradient.reshape(-1)) for gradient in gradients]
        if self.clipvalue is not None:
            return [np.clip(x, -self.clipvalue, self.clipvalue) for x in gradients]
        if self.clipnorm is not None:
            factors = [min(1, self.clipnorm / norm) if norm else 1 for norm in norms]
            return [x * f for x, f in zip(gradients, factors, strict=True)]
        if self.global_clipnorm is not None:
            factor = min(1, self.global_clipnorm / np.linalg.norm(norms))
            return [gradient * factor for gradient in gradients]
        return gradients

    def _average(self):
        if not self.use_ema:
            return
        # As Keras counts: updates, and momentum 0 until there was one.
        updates = self.calls // self.accumulation_steps
        momentum = np.float32(self.ema_momentum if updates else 0)
        averages = self.averages or self.values
        self.averages = [
            momentum * average + (1 - momentum) * value
            for average, value in zip(averages, self.values, strict=True)
        ]
        frequency = self.ema_overwrite_frequency
        if frequency and (updates + 1) % frequency == 0:
            self.values = [average.copy() for average in self.averages]
            self.attended = [average.copy() for average in self.averages]

    def final_values(self):
        """What a model's variables should hold after `fit`."""
        return self.averages if self.use_ema else self.values

    def slots(self, index):
        """What `optimizer.slots` should return."""
        names = ["hidden_state", "gradient_averages", "mean_squares"]
        if self.config.dynamic_output_scale:
            names.append("log_learning_rate")
        found = {name: self.states[index][name] for name in names}
        if self.config.attention:
            found["true_value"] = self.values[index].reshape(-1)
        return found


@dataclasses.dataclass
class Problem:
    """Parameters at the start and their gradients, whatever they are by then.

    `y = sum(x * parameters)`: the gradient of a step, of the mean of `y` over two rows
    of the `[2 * steps, elements]` inputs `x`, is the mean of these.
    """

    values: list[np.ndarray]
    inputs: np.ndarray

    @classmethod
    def make(cls, steps=6, seed=0):
        """A problem whose gradients differ in size from tensor to tensor."""
        generator = np.random.default_rng(seed)
        sizes = np.repeat(np.array([1.0, 0.01, 10.0, 1.0]), SIZES)
        return cls(
            [generator.standard_normal(shape).astype(np.float32) for shape in SHAPES],
            (generator.standard_normal((2 * steps, sum(SIZES))) * sizes).astype(
                np.float32
            ),
        )

    def broken(self):
        """The same with a NaN, an infinity, and both in several tensors at once."""
        inputs = self.inputs.copy()
        inputs[2, SIZES[0]] = np.nan  # step 1, tensor 1
        inputs[5, 3] = np.inf  # step 2, tensor 0
        inputs[6:8, -1] = [np.inf, -np.inf]  # step 3, tensor 3: NaN once summed
        inputs[8, :] = np.nan  # step 4, all of them
        return Problem(self.values, inputs)

    @property
    def targets(self):
        """Something for `fit` to pass on to a loss that ignores it."""
        return np.zeros((len(self.inputs), 1), np.float32)

    def gradients(self):
        """The gradients of each step, a list of arrays."""
        with np.errstate(invalid="ignore"):  # inf - inf
            means = (self.inputs[::2] + self.inputs[1::2]) / 2
        ends = np.cumsum(SIZES)[:-1]
        return [
            [x.reshape(s) for x, s in zip(np.split(mean, ends), SHAPES, strict=True)]
            for mean in means
        ]

    def run_by_hand(self, **options) -> OptimizerByHand:
        """The optimizer by hand after all steps."""
        expected = OptimizerByHand(self.values, **options)
        for gradients in self.gradients():
            expected.call(gradients)
        return expected


@keras.saving.register_keras_serializable(package="tests")
class Parameters(keras.layers.Layer):
    """`y = sum(x * parameters)`, the parameters being those of a `Problem`."""

    def __init__(self, constrained=False, **options):
        super().__init__(**options)
        self.constrained = constrained

    def build(self, input_shape):
        constraint = keras.constraints.NonNeg() if self.constrained else None
        self.pieces = [
            self.add_weight(shape=shape, name=f"piece_{i}", constraint=constraint)
            for i, shape in enumerate(SHAPES)
        ]

    def call(self, x):
        flat = [keras.ops.reshape(piece, (-1,)) for piece in self.pieces]
        products = keras.ops.cast(x, self.compute_dtype) * keras.ops.concatenate(flat)
        return keras.ops.sum(products, axis=-1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "constrained": self.constrained}


@keras.saving.register_keras_serializable(package="tests")
def mean_output(targets, outputs):
    """A loss that is the mean output; one number a row, for Keras to scale.

    (Under several replicas Keras leaves a scalar loss unscaled.)
    """
    return keras.ops.mean(outputs + 0.0 * targets, axis=-1)


def make_model(problem, constrained=False):
    """A model that starts at a problem's parameters."""
    inputs = keras.Input((sum(SIZES),))
    model = keras.Model(inputs, Parameters(constrained)(inputs))
    for variable, value in zip(model.trainable_variables, problem.values, strict=True):
        variable.assign(value)
    return model


def fit(model, optimizer, problem, epochs=1, **options):
    """Compiles and fits a model on a problem, in its order."""
    compile_options = {
        name: options.pop(name)
        for name in ("jit_compile", "run_eagerly", "steps_per_execution")
        if name in options
    }
    model.compile(optimizer, loss=mean_output, **compile_options)
    return go_on(model, problem, epochs=epochs, **options)


def go_on(model, problem, **options):
    """Fits a model that is compiled on a problem, in its order."""
    options = dict(batch_size=2, shuffle=False, verbose=0) | options
    return model.fit(problem.inputs, problem.targets, **options)


def numbers(variables):
    """Variables as NumPy arrays."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same(found, wanted, rtol=2e-5, atol=4e-6, where=""):
    """Arrays agree to the rounding of float32 steps."""
    assert_close(found, wanted, rtol, atol, where)


def assert_same_slots(found, wanted):
    """So do two optimizers' states of the elements of a variable."""
    assert_close(found, wanted, rtol=1e-4, atol=2e-5)


def assert_follows(optimizer, variables, expected, attended=False):
    """An optimizer and its variables hold what was computed by hand."""
    wanted = expected.attended if attended else expected.values
    assert_same(numbers(variables), wanted, where="values")
    assert_same_state(optimizer, variables, expected)


def assert_same_state(optimizer, variables, expected):
    """The optimizer's state alone."""
    near = dict(rtol=1e-7, atol=2e-5)
    for index, variable in enumerate(variables):
        found = optimizer.slots(variable)
        wanted = expected.slots(index)
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            scale = np.abs(array).max() if name != "hidden_state" else 1.0
            atol = 2e-5 * max(scale, 1e-12)
            where = f"{name} of tensor {index}"
            assert_close(found[name], array, 1e-4, atol, where)
        tensor_state = expected.states[index]["tensor_state"]
        assert_close(optimizer.tensor_state(variable), tensor_state, **near)
    assert_close(optimizer.global_state, expected.global_state, **near)
    assert optimizer.skipped_steps == expected.skipped_steps
    if expected.averages is not None:
        averages = optimizer._model_variables_moving_average
        assert_same(numbers(averages), expected.averages, where="averages")
