"""One training run as a loop over a step that is compiled whole."""

import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
from absl import logging

from imagenet.accelerator.images import DeviceImages, augmented, scaled
from imagenet.run.config import EVAL_COLUMNS, TRAIN_COLUMNS
from learned_optimizer.utils.csv_log import CsvLog

LABEL_SMOOTHING = 0.1
# Steps between two looks at the losses: the device does not wait for the host.
STEPS_A_LOOK = 20


class OutOfTime(Exception):
    """A call has used up its minutes."""


class TrainingStep:
    """A network and its optimizer; images, gradients and update are one program.

    The optimizer is built for the trainable variables, and weight decay is its own.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self._model = model
        self._optimizer = optimizer
        self._values = tuple(
            # Copies, since what is donated is gone.
            [jnp.array(variable.value, copy=True) for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                optimizer.variables,
            )
        )
        self._step = jax.jit(self._advance, donate_argnums=(0,))
        self._logits = jax.jit(self._evaluate)

    def __call__(self, images: DeviceImages, rows: np.ndarray, key):
        """A step on the images of some rows; mean loss and accuracy, on the device."""
        self._values, loss, accuracy = self._step(
            self._values, images.images, images.labels, rows, key
        )
        return loss, accuracy

    def logits(self, images: DeviceImages, batch_size: int) -> np.ndarray:
        """Of all images in their order, without augmentation, `[images, classes]`."""
        parts = [
            np.asarray(self._logits(self._values, images.images[k : k + batch_size]))
            for k in range(0, len(images), batch_size)
        ]
        return np.concatenate(parts)

    def _advance(self, values, images, labels, rows, key):
        trainable, fixed, state = values
        batch, answers = augmented(images, rows, key), labels[rows]

        def objective(trainable):
            logits, new = self._model.stateless_call(
                trainable, fixed, batch, training=True
            )
            classes = logits.shape[-1]
            targets = jax.nn.one_hot(answers, classes) * (1.0 - LABEL_SMOOTHING)
            targets += LABEL_SMOOTHING / classes
            loss = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()
            return loss, (new, (logits.argmax(-1) == answers).mean())

        (loss, (fixed, accuracy)), gradients = jax.value_and_grad(
            objective, has_aux=True
        )(trainable)
        trainable, state = self._optimizer.stateless_apply(state, gradients, trainable)
        return (trainable, fixed, state), loss, accuracy

    def _evaluate(self, values, images):
        trainable, fixed, _ = values
        logits, _ = self._model.stateless_call(
            trainable, fixed, scaled(images), training=False
        )
        return logits


def train(
    step: TrainingStep,
    images: DeviceImages,
    validation: DeviceImages,
    folder: pathlib.Path,
    *,
    batch_size: int,
    train_steps: int,
    seed: int,
    rate: Callable[[int], float],
    deadline: float,
) -> None:
    """Trains from the start; `train.csv` grows meanwhile, `eval.csv` ends it.

    Raises:
        OutOfTime: It came before the last step.
    """
    folder.mkdir(exist_ok=True)
    log = CsvLog(folder / "train.csv", TRAIN_COLUMNS, 0)
    began, pending = time.monotonic(), []
    for number in range(train_steps):
        rows = images.rows(number, batch_size, seed)
        key = jax.random.key(seed * 1_000_003 + number)
        pending.append(step(images, rows, key))
        # The first step is looked at by itself: it holds the time to compile.
        if number and (number + 1) % STEPS_A_LOOK and number + 1 < train_steps:
            continue
        figures = np.array(pending, np.float32)
        seconds, began = time.monotonic() - began, time.monotonic()
        first = number + 1 - len(figures)
        speed = batch_size * len(figures) / seconds
        for done, (loss, accuracy) in enumerate(figures, first):
            values = (done + 1, loss, accuracy, rate(done), speed)
            log.write(dict(zip(TRAIN_COLUMNS, values, strict=True)))
        log.flush()
        pending = []
        if not np.isfinite(figures[-1, 0]):
            logging.warning("the loss of step %d is %s", number + 1, figures[-1, 0])
        if time.monotonic() > deadline:
            raise OutOfTime(
                f"step {number + 1} of {train_steps} in {folder}: a run must fit into "
                "a call, with fewer --train_steps if need be"
            )
    log.close()
    labels = np.asarray(validation.labels)
    logits = step.logits(validation, batch_size)
    ranks = ranks_of(labels, logits)
    losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(labels)), labels]
    row = (train_steps, (ranks < 1).mean(), (ranks < 5).mean(), losses.mean())
    log = CsvLog(folder / "eval.csv", EVAL_COLUMNS, 0)
    log.write(dict(zip(EVAL_COLUMNS, (*row, len(labels)), strict=True)))
    log.close()


def ranks_of(labels, logits) -> np.ndarray:
    """How many other classes are not surely below the label's, `[images]`.

    Ties count against the label, and so does what is not a number.
    """
    of_labels = np.take_along_axis(logits, labels[:, None], axis=1)
    # The label's own class is not below itself.
    return (~(logits < of_labels)).sum(axis=1) - 1
