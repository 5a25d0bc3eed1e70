"""The compiled steps of a run: gradients → optimizer → figures, and evaluation.

images → logits → loss → gradients, on each replica, part by part of its batch
    → summed over replicas and applied by the optimizer
    → a row of figures a step, which leaves the device once a loop
"""

import keras
import numpy as np
import tensorflow as tf

from imagenet.optimizers import OptimizerSpec, kernels_of, unwrapped
from imagenet.run.config import RunConfig
from imagenet.run.devices import Devices


class Programs:
    """Training and evaluation steps of one model under one strategy.

    Attributes:
        train: From an iterator and a number of steps to `[steps, 4]` figures: sums of
            loss and of right answers, of weights, and the mean log of the learned
            rates (0 where there are none).
        evaluate: From an iterator and a number of steps to `[4]` sums: answers that
            were right, those among the first five, loss, images.
        gradients: From images, labels, weights and the number of images, to the
            gradients of a replica, and its sums of loss, right answers, weights.
    """

    def __init__(
        self,
        config: RunConfig,
        spec: OptimizerSpec,
        devices: Devices,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
    ):
        self._devices = devices
        self._strategy = devices.strategy
        self._model = model
        self._optimizer = optimizer
        self._smoothing = config.label_smoothing
        self._parts = config.accumulation_steps
        self._variables = model.trainable_variables
        self._is_learned = spec.is_learned and (
            unwrapped(optimizer).config.dynamic_output_scale
        )
        kernels = {id(variable) for variable in kernels_of(model)}
        # Divided, since gradients are summed over replicas.
        decay = spec.gradient_decay / devices.num_replicas
        self._decays = [decay * (id(v) in kernels) for v in self._variables]
        compiled = tf.function(
            self._raw_gradients, jit_compile=config.jit_compile, autograph=False
        )
        self.gradients = compiled if config.jit_compile else self._raw_gradients
        if self._parts > 1:
            self._accumulators = _accumulators(self._strategy, self._variables)
        # Those that are synchronized are the same everywhere, and an asynchronous
        # worker has none.
        differ = not (config.synchronized_batch_normalization or devices.asynchronous)
        self._statistics = [
            variable.value
            for variable in model.non_trainable_variables
            if differ and "float" in variable.dtype
        ]
        self._average = tf.function(
            lambda: self._strategy.run(self._average_here), autograph=False
        )
        self.train = tf.function(self._train, reduce_retracing=True)
        self.evaluate = tf.function(self._evaluate, reduce_retracing=True)

    def average_statistics(self) -> None:
        """Gives all replicas the mean of their running statistics of normalizations.

        Keras leaves each replica its own: an evaluation would be of as many networks
        as there are replicas, and what is saved that of the first one.
        """
        if self._devices.num_replicas > 1 and self._statistics:
            self._average()

    def _average_here(self):
        context = tf.distribute.get_replica_context()
        # Copies, for these are tensors of a device: `MultiWorkerMirroredStrategy` with
        # one replica a process refuses to reduce what it reads, which names none.
        values = [tf.identity(variable) for variable in self._statistics]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, mean in zip(self._statistics, means, strict=True):
            variable.assign(mean)

    def _train(self, iterator, steps):
        rows = tf.TensorArray(tf.float32, size=steps)
        for step in tf.range(steps):
            if self._parts == 1:
                row = self._strategy.run(self.train_step, args=(next(iterator),))
            else:
                for _ in tf.range(self._parts):
                    self._strategy.run(self._accumulate, args=(next(iterator),))
                row = self._strategy.run(self._apply_accumulated)
            rows = rows.write(step, self._sum(row))
        return rows.stack()

    def _sum(self, values):
        # Over replicas; a value of the only one is its own sum.
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def train_step(self, batch):
        """One step of a replica, or of an asynchronous worker."""
        images, labels, weights = batch
        count = tf.maximum(_all_sum(tf.reduce_sum(weights)), 1.0)
        gradients, figures = self.gradients(images, labels, weights, count)
        self.apply(gradients)
        return self._row(figures)

    def _raw_gradients(self, images, labels, weights, count):
        """Gradients of the loss, its sum over images divided by `count`; figures."""
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            loss = tf.reduce_sum(weights * self._loss(labels, logits))
            scaled = self._optimizer.scale_loss(loss / count)
        gradients = tape.gradient(scaled, self._variables_of_tape())
        right = weights * _is_among(labels, logits, 1)
        figures = tf.stack([loss, tf.reduce_sum(right), tf.reduce_sum(weights)])
        return gradients, figures

    def _variables_of_tape(self):
        return [variable.value for variable in self._variables]

    def apply(self, gradients):
        """The optimizer's step by `gradients`, on a replica."""
        decayed = [
            gradient
            if not decay
            else gradient
            + self._optimizer.scale_loss(decay) * tf.cast(variable, gradient.dtype)
            for gradient, decay, variable in zip(
                gradients, self._decays, self._variables_of_tape(), strict=True
            )
        ]
        scaled = isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer)
        if scaled and self._devices.num_replicas > 1:
            decayed = _agreeing(decayed)
        self._optimizer.apply(decayed, self._variables)

    def _row(self, figures):
        log_rate = 0.0
        if self._is_learned:
            # Once a replica, so the sum over replicas is the mean.
            log_rate = unwrapped(self._optimizer).mean_log_learning_rate()
            log_rate /= self._devices.num_replicas
        return tf.concat([figures, [log_rate]], axis=0)

    def _accumulate(self, batch):
        images, labels, weights = batch
        gradients, figures = self.gradients(images, labels, weights, 1.0)
        for accumulator, value in zip(
            self._accumulators, [*gradients, figures], strict=True
        ):
            accumulator.assign_add(value)

    def _apply_accumulated(self):
        *gradients, figures = [a.read_value() for a in self._accumulators]
        count = tf.maximum(_all_sum(figures[2]), 1.0)
        self.apply([gradient / count for gradient in gradients])
        row = self._row(figures)
        with tf.control_dependencies([row]):
            for accumulator in self._accumulators:
                accumulator.assign(tf.zeros_like(accumulator.read_value()))
        return row

    def _loss(self, labels, logits):
        """Cross-entropy `[batch]` with smoothed labels."""
        classes = logits.shape[-1]
        targets = tf.one_hot(labels, classes) * (1.0 - self._smoothing)
        targets += self._smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def _evaluate(self, iterator, steps):
        totals = tf.zeros([4])
        for _ in tf.range(steps):
            sums = self._strategy.run(self._evaluation_step, args=(next(iterator),))
            totals += self._sum(sums)
        return totals

    def _evaluation_step(self, batch):
        images, labels, weights = batch
        logits = self._model(images, training=False)
        # Without smoothing: the loss of the labels as they are.
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        first, first_five = (_is_among(labels, logits, count) for count in (1, 5))
        figures = (first, first_five, loss, 1.0)
        return tf.stack([tf.reduce_sum(weights * figure) for figure in figures])


def _is_among(labels, logits, count):
    """`[batch]` 1.0 where the label has one of the `count` highest logits."""
    return tf.cast(
        tf.math.in_top_k(labels, tf.cast(logits, tf.float32), count), "float32"
    )


def _all_sum(value):
    """The sum over all replicas of this step."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _agreeing(gradients):
    """The same gradients; where those of another replica overflowed, not finite.

    Keras's loss scale looks at one replica's gradients, or at each process's own: one
    would then step by what overflowed on another, or wait for a process that skips.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    overflowed = _all_sum(1.0 - tf.cast(finite, tf.float32)) > 0
    first, *others = gradients
    return [tf.where(overflowed, np.nan, first), *others]


def _accumulators(strategy, variables):
    """A sum for each gradient and one for the figures, each replica's its own."""
    shapes = [(tuple(v.shape), tf.as_dtype(v.dtype)) for v in variables]
    with strategy.scope():
        return [
            tf.Variable(
                tf.zeros(shape, dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for shape, dtype in [*shapes, ((3,), tf.float32)]
        ]
