"""Running averages of batch normalisation, computed anew from batches of data."""

import inspect

import keras
import numpy as np
from keras import ops


class RunningAverages:
    """The moving means and variances of a model's `BatchNormalization` layers.

    Args:
        model: A built Keras model. Its forward pass in training mode is compiled once,
            whatever batches follow. Built in the scope of a `tf.distribute` strategy,
            it runs on all replicas, and statistics are means over these.
    """

    def __init__(self, model):
        self._model = model
        positions = {
            id(variable): position
            for position, variable in enumerate(model.non_trainable_variables)
        }
        layers = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum < 1
        ]
        # `{position: momentum}`; a model without the argument never trains in them.
        self._momenta = {
            positions[id(variable)]: layer.momentum
            for layer in layers
            for variable in (layer.moving_mean, layer.moving_variance)
            if "training" in inspect.signature(model.call).parameters
        }
        # Under TensorFlow alone; without a strategy it is the default one.
        self._strategy = getattr(model, "distribute_strategy", None)
        self._forward = _compiled(
            self._on_replicas if self._strategy else self._new_averages
        )

    def recompute(self, batches) -> int:
        """Sets each to the mean, over the batches, of the statistics of a batch.

        Those are what the layer normalises by in training mode. Nothing else of the
        model changes, and a layer that uses no batch statistics in training (frozen, or
        called with `training=False`) stays as it is.

        A batch is inputs of the model; under a strategy it may be a value of its
        replicas, others are what every replica sees. Of a model without such layers
        nothing is read. Returns the number of batches.

        Raises:
            ValueError: If there is no batch.
        """
        if not self._momenta:
            return 0
        variables = self._model.non_trainable_variables
        values = [ops.convert_to_tensor(variable) for variable in variables]
        # Each replica reads its own.
        trainable = [] if self._strategy else self._model.trainable_variables
        trainable = [ops.convert_to_tensor(variable) for variable in trainable]
        count, sums = 0, {}
        for batch in batches:
            if not count:
                # A layer in inference mode leaves its averages as they are. The others
                # start from 0, so that a batch adds (1 - momentum) times its statistic.
                for position, new in self._step(trainable, values, batch).items():
                    old = ops.convert_to_numpy(values[position])
                    if not np.array_equal(new, old):
                        values[position] = ops.zeros_like(values[position])
                        sums[position] = 0.0
            found = self._step(trainable, values, batch)
            sums = {p: total + np.float64(found[p]) for p, total in sums.items()}
            count += 1
        if not count:
            raise ValueError("batches must be one or more. Received: none")
        for position, total in sums.items():
            mean = total / count / (1 - self._momenta[position])
            variables[position].assign(mean.astype(np.float32))
        return count

    def _step(self, trainable, values, batch):
        """`{position: average}` after a batch."""
        found = self._forward(trainable, values, batch)
        return {
            position: ops.convert_to_numpy(value)
            for position, value in zip(self._momenta, found, strict=True)
        }

    def _new_averages(self, trainable, values, batch):
        _, found = self._model.stateless_call(trainable, values, batch, training=True)
        return [found[position] for position in self._momenta]

    def _on_replicas(self, _, values, batch):
        import tensorflow as tf

        strategy = self._strategy

        def forward(values, batch):
            trainable = [v.value for v in self._model.trainable_variables]
            found = self._new_averages(trainable, values, batch)
            if strategy.num_replicas_in_sync == 1:
                return found
            # Copies: what no operation made names no device to reduce it on.
            return tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.MEAN, [tf.identity(value) for value in found]
            )

        found = strategy.run(forward, args=(values, batch))
        # The same on all.
        return [strategy.experimental_local_results(value)[0] for value in found]


def _compiled(function):
    """A pure function of tensors, as the backend runs it best."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, reduce_retracing=True)
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "torch":
        import torch

        def forward(*arguments):
            # Dropout draws from PyTorch's own generator.
            with torch.no_grad(), torch.random.fork_rng():
                return function(*arguments)

        return forward
    return function
