"""`hierarchical_rnn`, an optimizer for the training programs of Model Garden.

Importing this module registers it. From then on the YAML of any experiment of
TensorFlow Model Garden (the package `official`) can name it:

    trainer:
      optimizer_config:
        optimizer: {type: hierarchical_rnn, hierarchical_rnn: {weights: default}}
        learning_rate: {type: constant, constant: {learning_rate: 1.0}}
        warmup: {type: null}

Model Garden is written on tf_keras, the Keras 2 that lives on beside Keras 3, and
takes no Keras 3 optimizer. `ModelGardenHierarchicalRNN` is the shell that it takes:
the loss scale, the sum over replicas, gradient transformers, the step counter, the
learning rate and checkpoints are tf_keras's, the step is `HierarchicalRNN`'s. It
derives from the legacy optimizer because Model Garden asks for one: its averages of
the parameters (`ema`) wrap nothing else, and its tasks never ask for the newer class.
"""

import dataclasses
import functools

import keras
import tensorflow as tf
from absl import logging

from learned_optimizer.hierarchical_rnn import HierarchicalRNN
from learned_optimizer.keras_step.arguments import checked_total_steps
from learned_optimizer.keras_step.checkpoint_config import CheckpointConfig

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "learned_optimizer.model_garden needs Keras on TensorFlow: set "
        f"KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()!r}"
    )
try:
    import tf_keras
    from official.core import train_utils
    from official.modeling.optimization import optimizer_factory
    from official.modeling.optimization.configs import (
        optimization_config,
        optimizer_config,
    )
except ImportError as error:
    raise ImportError(
        "learned_optimizer.model_garden needs TensorFlow Model Garden: "
        f"pip install hierarchical-rnn-optimizer[models]. Received: {error}"
    ) from error

NAME = "hierarchical_rnn"


@dataclasses.dataclass
class HierarchicalRNNConfig(optimizer_config.BaseOptimizerConfig):
    """What `optimizer.hierarchical_rnn` takes in YAML; see `HierarchicalRNN`.

    Beside these it takes `clipnorm`, `clipvalue` or `global_clipnorm`. Averages of
    the parameters and the loss scale are `optimizer_config.ema` and
    `runtime.loss_scale`, as for every optimizer of Model Garden.

    Attributes:
        name: Name of the optimizer.
        weights: A shipped name, the path of an `.npz` file with its card beside it,
            or null for fresh, untrained ones.
        initial_learning_rate: Where the learned rates start: a number, a range
            `[low, high]`, or null for what the weights' card says.
        seed: Seed of whatever is drawn.
        weight_decay: Decoupled, in learned step lengths.
        exclude_from_weight_decay: Regular expressions; a variable whose name one of
            them is found in does not decay.
        horizon: Whether the nominal learning rate follows a schedule to the last of the
            trainer's `train_steps`. Null: with weights that have one and a constant
            learning rate.
    """

    name: str = NAME
    weights: str | None = "default"
    initial_learning_rate: float | list[float] | None = None
    seed: int | None = None
    weight_decay: float | None = None
    exclude_from_weight_decay: list[str] | None = None
    horizon: bool | None = None


class _OnSummedGradients(HierarchicalRNN):
    """`HierarchicalRNN` on gradients that were summed over the replicas before."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


@tf_keras.saving.register_keras_serializable(package="learned_optimizer")
class ModelGardenHierarchicalRNN(tf_keras.optimizers.legacy.Optimizer):
    """`HierarchicalRNN` in the shell of a legacy tf_keras optimizer.

    Create it in the scope of the strategy, as Model Garden does. Its state is made
    at the first step and lies in checkpoints under the names of the Keras
    optimizer's variables; what a checkpoint holds is restored then. The architecture
    of the weights lies there, too, and a checkpoint of another one is refused at once:
    an alias such as `default` may have moved on since.

    Arguments that are not listed are those of `HierarchicalRNN`.

    Args:
        learning_rate: A number or a tf_keras schedule of `iterations`; multiplies
            the learned step.
        exclude_from_weight_decay: See `HierarchicalRNNConfig`.
        horizon: What `set_train_steps` does, see `HierarchicalRNNConfig`.
        gradient_aggregator: Sums `(gradient, variable)` pairs over the replicas;
            None: `tf.distribute` does.
        gradient_transformers: Functions of summed `(gradient, variable)` pairs,
            called in turn. They exclude clipping.

    Raises:
        ValueError: If an argument or the weights break a rule, or the weights use
            attention.
    """

    _HAS_AGGREGATE_GRAD = True

    def __init__(
        self,
        learning_rate=1.0,
        weights="default",
        initial_learning_rate=None,
        seed=None,
        weight_decay=None,
        exclude_from_weight_decay=None,
        horizon=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        gradient_aggregator=None,
        gradient_transformers=None,
        name=NAME,
    ):
        if isinstance(exclude_from_weight_decay, str):
            raise ValueError(
                "`exclude_from_weight_decay` must be a list of regular expressions. "
                f"Received: exclude_from_weight_decay={exclude_from_weight_decay!r}"
            )
        clipping = dict(
            clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm
        )
        super().__init__(name, gradient_aggregator, gradient_transformers, **clipping)
        self._set_hyper("learning_rate", learning_rate)
        self._learned = _OnSummedGradients(
            learning_rate=self._learning_rate_now,
            weights=weights,
            initial_learning_rate=initial_learning_rate,
            seed=seed,
            weight_decay=weight_decay,
            name=name,
            **clipping,
        )
        if self._learned.config.attention:
            raise ValueError(
                "Weights with attention need the true parameters put into the model "
                "for evaluation and checkpoints, which Model Garden's trainer does "
                f"not do. Received: weights {self._learned.weights.name!r}"
            )
        self._horizon = horizon
        if horizon:
            checked_total_steps(1, self._learned.config)
        # A legacy optimizer does not track its attributes by itself.
        self._track_trackable(
            CheckpointConfig(self._learned.config, self._learned), "checkpoint_config"
        )
        self._exclude_from_weight_decay = list(exclude_from_weight_decay or [])
        self._learned.exclude_from_weight_decay(
            var_names=self._exclude_from_weight_decay
        )
        # Whoever changes only the type of an optimizer keeps the rates of another.
        if learning_rate != 1.0:
            logging.warning(
                "The learning rate multiplies the step of %s, which was trained "
                "with 1.0. Received: learning_rate=%r",
                NAME,
                learning_rate,
            )

    @property
    def learned(self) -> HierarchicalRNN:
        """The Keras 3 optimizer that takes the steps, to look into its state."""
        return self._learned

    def set_train_steps(self, train_steps):
        """Lets the nominal learning rate end with a training, if `horizon` is so.

        A checkpoint's number is taken over this one: a training goes on under the
        schedule with which it began, or without.
        """
        is_known = self._horizon
        if is_known is None:
            is_constant = not callable(self._hyper["learning_rate"])
            is_known = self._learned.config.nominal is not None and is_constant
        self._learned.total_steps = train_steps if is_known else None

    def _learning_rate_now(self):
        return self._decayed_lr(tf.float32)

    def apply_gradients(
        self, grads_and_vars, name=None, experimental_aggregate_gradients=True
    ):
        """Takes a step in replica context; arguments and result are as in tf_keras."""
        grads_and_vars = list(grads_and_vars)
        with tf.name_scope(name or self._name):
            with tf.init_scope():
                self._create_all_weights([pair[1] for pair in grads_and_vars])
            if experimental_aggregate_gradients:
                grads_and_vars = self._aggregate_gradients(grads_and_vars)
            # Not `_transform_gradients`: clipping is done inside the step.
            for transform in self.gradient_transformers:
                grads_and_vars = transform(grads_and_vars)
            gradients, variables = zip(*grads_and_vars, strict=True)
            self._learned.apply(gradients, [_bare(variable) for variable in variables])
            return self.iterations.assign_add(1, read_value=False)

    def _create_slots(self, var_list):
        """Makes the state, and tracks it, whereby a checkpoint's is restored."""
        if self._learned.built:
            return
        with self._distribution_strategy_scope():
            self._learned.build([_bare(variable) for variable in var_list])
        # Of tf_keras's `weights` all are saved, so meta-parameters are among them.
        for variable in self._learned._variables:
            self._track_trackable(variable.value, variable.name)
            self._weights.append(variable.value)

    def get_config(self):
        """The arguments; weights that are not shipped come with their numbers."""
        weights = self._learned.weights
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "weights": weights.name if weights.shipped else weights.to_dict(),
            "initial_learning_rate": self._learned.initial_learning_rate,
            "seed": self._learned.seed,
            "weight_decay": self._learned.weight_decay,
            "exclude_from_weight_decay": self._exclude_from_weight_decay,
            "horizon": self._horizon,
        }


def _bare(variable):
    """The variable inside one that mixed precision wraps for layers to read."""
    return variable._variable if hasattr(variable, "true_dtype") else variable


def _add_field(config_class, name, field_class):
    """Adds a field to a config dataclass, in place.

    In place, because every experiment makes its `OptimizerConfig` by itself, and
    strict overrides, as those from YAML, reach only fields that exist. What the
    class needs for one more field is what its dataclass subclass has. Instances and
    subclasses that were made before stay as they are.
    """
    field = dataclasses.field(default_factory=field_class)
    extended = dataclasses.make_dataclass(
        config_class.__name__, [(name, field_class, field)], bases=(config_class,)
    )
    config_class.__annotations__[name] = field_class
    for made in (
        "__init__",
        "__repr__",
        "__eq__",
        "__match_args__",
        "__dataclass_fields__",
    ):
        setattr(config_class, made, getattr(extended, made))


def _tell_train_steps(create_optimizer):
    """Wraps the function with which trainers make optimizers, and which knows both."""

    @functools.wraps(create_optimizer)
    def create(task, params):
        optimizer = shell = create_optimizer(task, params)
        # Inside averages of the parameters, a loss scale, or both.
        while not isinstance(shell, ModelGardenHierarchicalRNN) and shell is not None:
            wrapped = getattr(shell, "inner_optimizer", None)
            shell = wrapped or getattr(shell, "_optimizer", None)
        if shell is not None and params.trainer.train_steps:
            shell.set_train_steps(params.trainer.train_steps)
        return optimizer

    return create


train_utils.create_optimizer = _tell_train_steps(train_utils.create_optimizer)
_add_field(optimization_config.OptimizerConfig, NAME, HierarchicalRNNConfig)
for _legacy in (True, False):
    optimizer_factory.register_optimizer_cls(
        NAME, ModelGardenHierarchicalRNN, use_legacy_optimizer=_legacy
    )
