"""Callbacks for `Model.fit` that know `HierarchicalRNN`.

`SwapTrueValues` is for weights with attention, whose models hold the attended
location while they train; `RecomputeRunningAverages` is for models with batch
normalisation; `LearnedRates` shows what the optimizer has learned. These change nothing
about the training. `SetTotalSteps` does: it tells the optimizer how long `fit` is.
"""

import itertools
import warnings

import keras
import numpy as np
from keras import ops

from learned_optimizer.hierarchical_rnn import HierarchicalRNN
from learned_optimizer.keras_step.model_step import assign_copy
from learned_optimizer.rule.config import is_positive_integer
from learned_optimizer.utils.batch_normalization import RunningAverages


class SwapTrueValues(keras.callbacks.Callback):
    """Puts the true parameters into the model for validation and prediction.

    With weights that use attention, the model's variables hold the location where
    the next gradient is taken, and the optimizer holds the parameters proper. This
    callback, in the manner of `keras.callbacks.SwapEMAWeights`, exchanges them
    around `evaluate` and `predict`, those inside `fit` too. With weights without
    attention it does nothing.

    Example:
    >>> model.fit(x, y, validation_data=(x_val, y_val), callbacks=[SwapTrueValues()])

    Args:
        swap_on_epoch: Whether the true parameters also stand in the model from the
            end of an epoch to the beginning of the next one, for callbacks that
            come after this one and save the model. Defaults to `False`.

    Raises:
        ValueError: If the model's optimizer is not a `HierarchicalRNN`.
    """

    def __init__(self, swap_on_epoch=False):
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        # The attended locations while the true parameters are in the model.
        self._attended = None

    def _put_true_values(self):
        optimizer = _learned_optimizer(self.model, "SwapTrueValues")
        if self._attended is not None or not optimizer.built:
            return
        pairs = optimizer.pairs_with_true_values()
        self._attended = [
            np.array(ops.convert_to_numpy(variable)) for variable, _ in pairs
        ]
        for variable, true_value in pairs:
            assign_copy(variable, true_value)

    def _put_attended_back(self):
        if self._attended is None:
            return
        optimizer = _learned_optimizer(self.model, "SwapTrueValues")
        for (variable, _), location in zip(
            optimizer.pairs_with_true_values(), self._attended, strict=True
        ):
            variable.assign(location)
        self._attended = None

    def on_train_begin(self, logs=None):
        # An earlier `fit` ended with true values, and so does this one: no `evaluate`
        # after it may put back what was before.
        self._attended = None

    on_train_end = on_train_begin

    def on_epoch_begin(self, epoch, logs=None):
        self._put_attended_back()

    def on_epoch_end(self, epoch, logs=None):
        if self.swap_on_epoch:
            self._put_true_values()

    def on_test_begin(self, logs=None):
        self._put_true_values()

    def on_test_end(self, logs=None):
        self._put_attended_back()

    on_predict_begin, on_predict_end = on_test_begin, on_test_end


class RecomputeRunningAverages(keras.callbacks.Callback):
    """Computes the running averages of batch normalisation anew for validation.

    The layers' own averages follow the weights with a delay. With an optimizer whose
    steps stay long, as those of `HierarchicalRNN` do with the weights that ship now,
    that delay can make a network that trains well useless at inference. Before each
    `evaluate`, that inside `fit` too, and before the end of `fit`, this callback sets
    the moving mean and variance of each `BatchNormalization` to the means over some
    batches of training data, as is usual for averaged weights (Izmailov et al.,
    *Averaging Weights Leads to Wider Optima and Better Generalization*, 2018, section
    3.2). Nothing else changes: the training goes on as it would have. It works with any
    optimizer. Put it after `SwapTrueValues` or `keras.callbacks.SwapEMAWeights`, whose
    weights are then those that the averages belong to.

    Example:
    >>> recompute = RecomputeRunningAverages(x)
    >>> model.fit(x, y, validation_data=(x_val, y_val), callbacks=[recompute])

    Args:
        data: Training data: inputs as arrays (one, or a list or dict of them), or an
            iterable of batches that can be gone through again, such as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a `DataLoader`; its batches
            are inputs or tuples `(inputs, targets, ...)`.
        num_batches: How many batches are used, fewer where the data has fewer.
            Defaults to 100.
        batch_size: Of the batches that are drawn from arrays; the same as in `fit`, on
            whose batches the statistics depend. Defaults to 32.

    Raises:
        ValueError: If one of the numbers is not a positive integer, or there is no
            batch.
    """

    def __init__(self, data, num_batches=100, batch_size=32):
        super().__init__()
        for name, value in (("num_batches", num_batches), ("batch_size", batch_size)):
            if not is_positive_integer(value):
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )
        self.data = data
        self.num_batches = num_batches
        self.batch_size = batch_size
        self._averages = None

    def _batches(self):
        """Inputs of the model, at most `num_batches`."""
        arrays = [self.data]
        if isinstance(self.data, (list, dict)):
            arrays = list(
                self.data.values() if isinstance(self.data, dict) else self.data
            )
        if all(hasattr(array, "shape") for array in arrays):
            rows = np.random.default_rng(0).permutation(len(arrays[0]))
            for first in range(0, len(rows), self.batch_size)[: self.num_batches]:
                chosen = rows[first : first + self.batch_size]
                yield keras.tree.map_structure(
                    lambda array, chosen=chosen: np.asarray(array)[chosen], self.data
                )
            return
        for batch in itertools.islice(self.data, self.num_batches):
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]

    def _recompute(self):
        if self._averages is None:
            self._averages = RunningAverages(self.model)
        self._averages.recompute(self._batches())

    def on_train_begin(self, logs=None):
        # Layers may have been frozen since.
        self._averages = None

    def on_test_begin(self, logs=None):
        self._recompute()

    def on_train_end(self, logs=None):
        self._recompute()
        self._averages = None


class SetTotalSteps(keras.callbacks.Callback):
    """Tells the optimizer how many updates the training will make in all.

    `fit` knows: the epochs times the steps of one, divided by the accumulation of
    gradients, and what was done before. The nominal learning rate then follows a
    schedule to its end at the last step, see `HierarchicalRNN(total_steps=...)`. A
    number that the optimizer was given stays; if `fit` goes beyond it, there is a
    warning.

    Example:
    >>> model.fit(x, y, epochs=20, callbacks=[SetTotalSteps()])

    Raises:
        ValueError: If `fit` does not know the number of steps of an epoch, the model's
            optimizer is not a `HierarchicalRNN`, or its weights have no nominal rate.
    """

    def __init__(self):
        super().__init__()
        self._is_to_set = False

    def on_train_begin(self, logs=None):
        _learned_optimizer(self.model, "SetTotalSteps")
        # The first epoch, which `initial_epoch` says, is known when it begins.
        self._is_to_set = True

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_to_set:
            return
        self._is_to_set = False
        optimizer = _learned_optimizer(self.model, "SetTotalSteps")
        steps = self.params.get("steps")
        if steps is None:
            raise ValueError(
                "SetTotalSteps needs to know the number of steps of an epoch: give "
                "`steps_per_epoch` to `fit`, a dataset of known cardinality "
                "(`tf.data.experimental.assert_cardinality`), or `total_steps` to the "
                "optimizer instead of this callback. Received: a dataset of unknown "
                "length"
            )
        calls = (self.params["epochs"] - epoch) * steps
        # Not `iterations`, which counts updates.
        calls += int(ops.convert_to_numpy(optimizer._iterations))
        planned = max(1, calls // (optimizer.gradient_accumulation_steps or 1))
        given = optimizer.get_config()["total_steps"]
        if given is None:
            optimizer.total_steps = planned
        elif planned > given:
            warnings.warn(
                f"This `fit` goes on to update {planned}, beyond the `total_steps` "
                f"that the optimizer was given, {given}: from there on its nominal "
                "learning rate stays at the end of its schedule",
                stacklevel=2,
            )


class LearnedRates(keras.callbacks.Callback):
    """Writes the learned learning rates for TensorBoard.

    For each variable of the model, the mean and the standard deviation of the
    natural logarithms of its elements' learning rates, as scalars
    `learned_rates/VARIABLE/mean` and `learned_rates/VARIABLE/standard_deviation`
    over the optimizer's iterations.

    Args:
        log_dir: Folder of the event files; a separate one inside TensorBoard's
            shows the rates as a separate run.
        update_freq: `"epoch"`, or an integer: also every n-th batch. Defaults
            to `"epoch"`.

    Raises:
        ImportError: If TensorFlow, which writes the files, cannot be imported.
        ValueError: If `update_freq` is neither, or the optimizer has no learned
            rates.
    """

    def __init__(self, log_dir, update_freq="epoch"):
        super().__init__()
        if update_freq != "epoch" and not is_positive_integer(update_freq):
            raise ValueError(
                "`update_freq` must be 'epoch' or a positive integer. "
                f"Received: update_freq={update_freq!r}"
            )
        self.log_dir = str(log_dir)
        self.update_freq = update_freq
        # Under every backend it is TensorFlow that writes; the package needs none.
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ImportError(
                "LearnedRates writes event files with `tf.summary`, which needs "
                f"TensorFlow under every backend of Keras. Received: {error}"
            ) from error
        self._summary = tf.summary
        self._writer = None
        # Batches so far, those of the epochs before, and those at the last writing.
        self._batches = self._before = self._written = 0

    def on_train_begin(self, logs=None):
        optimizer = _learned_optimizer(self.model, "LearnedRates")
        if not optimizer.config.dynamic_output_scale:
            raise ValueError(
                "LearnedRates needs an optimizer that learns its rates. Received: "
                f"weights {optimizer.weights.name!r} with dynamic_output_scale=False"
            )
        self._writer = self._summary.create_file_writer(self.log_dir)
        self._batches = self._written = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._before = self._batches

    def on_train_batch_end(self, batch, logs=None):
        # Several batches may have gone by: see `steps_per_execution` of `compile`.
        self._batches = self._before + batch + 1
        if self.update_freq == "epoch":
            return
        if self._batches // self.update_freq > self._written // self.update_freq:
            self._write()

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch" or self._written < self._batches:
            self._write()

    def on_train_end(self, logs=None):
        self._writer.close()

    def _write(self):
        self._written = self._batches
        if keras.backend.backend() == "jax":
            # Between batches the values are the trainer's, not the variables'.
            self.model.jax_state_sync()
        optimizer = _learned_optimizer(self.model, "LearnedRates")
        step = int(ops.convert_to_numpy(optimizer.iterations))
        with self._writer.as_default():
            for variable in optimizer.learned_variables:
                rates = optimizer.log_learning_rates(variable)
                name = f"learned_rates/{getattr(variable, 'path', variable.name)}"
                self._summary.scalar(f"{name}/mean", rates.mean(), step)
                self._summary.scalar(f"{name}/standard_deviation", rates.std(), step)
        self._writer.flush()


def _learned_optimizer(model, callback) -> HierarchicalRNN:
    """The model's optimizer, out of a `LossScaleOptimizer` if need be."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, HierarchicalRNN):
        raise ValueError(
            f"{callback} is for models that are trained by HierarchicalRNN. "
            f"Received: the optimizer {optimizer!r}"
        )
    return optimizer
