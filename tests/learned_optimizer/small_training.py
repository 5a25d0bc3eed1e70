"""A small training, the same under every backend of Keras.

    KERAS_BACKEND=jax python -m tests.learned_optimizer.small_training FOLDER

writes `FOLDER/losses.json`, a loss a step, and the model as it was in the middle;
with `--resume` it goes on from there.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

from learned_optimizer import HierarchicalRNN

STEPS = 16
SAVED_AFTER = 6


def data():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((STEPS * 8, 5)).astype(np.float32)
    targets = np.tanh(inputs @ generator.standard_normal((5, 2))).astype(np.float32)
    return inputs, targets


def make_model():
    generator = np.random.default_rng(1)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign(0.5 * generator.standard_normal(variable.shape))
    optimizer = HierarchicalRNN(
        initial_learning_rate=0.01,
        weight_decay=0.01,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=5,
        gradient_accumulation_steps=2,
    )
    model.compile(optimizer, loss="mse")
    return model


def steps_of(model, start, stop):
    """Trains from step `start` to `stop`; the loss of each batch alone."""
    inputs, targets = data()
    losses = []
    for step in range(start, stop):
        rows = slice(8 * step, 8 * step + 8)
        model.reset_metrics()
        losses.append(float(model.train_on_batch(inputs[rows], targets[rows])))
    return losses


def train(folder):
    """The whole training; saves the model in the middle."""
    model = make_model()
    losses = steps_of(model, 0, SAVED_AFTER)
    model.save(pathlib.Path(folder) / "middle.keras")
    return losses + steps_of(model, SAVED_AFTER, STEPS)


def resume(folder):
    """The second part, from the file of the first."""
    model = keras.models.load_model(pathlib.Path(folder) / "middle.keras")
    return steps_of(model, SAVED_AFTER, STEPS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    run = resume if arguments.resume else train
    (arguments.folder / "losses.json").write_text(json.dumps(run(arguments.folder)))
