"""Small trainings, whose files must load and go on alike in every later version.

As a program it writes them in the middle, with `losses.json` of the steps after;
`data/old_states.tar.xz` holds what commit 0d5d39b wrote. `--go_on` trains on from them.
"""

import argparse
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from learned_optimizer import Config, HierarchicalRNN
from learned_optimizer.weights import fresh_weights

ARCHIVE = pathlib.Path(__file__).parent / "data" / "old_states.tar.xz"
STEPS = 4
# Few meta-parameters, so that the files are small.
SMALL = Config(level_sizes=(3, 2, 2), attention=True)


def everything():
    """An optimizer with all that one can hold a variable for."""
    return HierarchicalRNN(
        weights=fresh_weights(SMALL, seed=1),
        initial_learning_rate=1e-2,
        use_ema=True,
        ema_momentum=0.5,
        gradient_accumulation_steps=3,
    )


OPTIMIZERS = {
    "model.keras": lambda: HierarchicalRNN(weights="default-v2"),
    "all.weights.h5": everything,
    "checkpoint": everything,
    "half.keras": lambda: keras.optimizers.LossScaleOptimizer(
        HierarchicalRNN(weights=fresh_weights(SMALL, seed=2)), initial_scale=64.0
    ),
}


def make_model(optimizer):
    """A network of 50 parameters, compiled; its weights are the same each time."""
    generator = np.random.default_rng(3)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign(0.5 * generator.standard_normal(variable.shape))
    model.compile(optimizer, loss="mse")
    return model


def batches():
    """`[steps, 16, 3]` inputs and `[steps, 16, 2]` targets of all steps."""
    generator = np.random.default_rng(4)
    inputs = generator.standard_normal((2 * STEPS, 16, 3)).astype(np.float32)
    return inputs, np.tanh(inputs @ generator.standard_normal((3, 2))).astype("float32")


def losses(model, start, stop):
    """Trains from step `start` to `stop`; the loss of each batch alone."""
    inputs, targets = batches()
    found = []
    for step in range(start, stop):
        model.reset_metrics()
        found.append(float(model.train_on_batch(inputs[step], targets[step])))
    return found


def checkpoint_of(model):
    """What the checkpoint holds."""
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def write(folder, names=OPTIMIZERS):
    """Trains, writes each file in the middle, and the losses after it."""
    after = {}
    for name in names:
        model = make_model(OPTIMIZERS[name]())
        losses(model, 0, STEPS)
        if name == "checkpoint":
            checkpoint_of(model).write(str(folder / name))
        elif name.endswith(".weights.h5"):
            model.save_weights(folder / name)
        else:
            model.save(folder / name)
        after[name] = losses(model, STEPS, 2 * STEPS)
    (folder / "losses.json").write_text(json.dumps(after, indent=1) + "\n")


def load(folder, name):
    """The model of a file that `write` wrote."""
    if name.endswith(".keras"):
        return keras.models.load_model(folder / name)
    model = make_model(OPTIMIZERS[name]())
    if name == "checkpoint":
        model.optimizer.build(model.trainable_variables)
        status = checkpoint_of(model).read(str(folder / name))
        status.assert_existing_objects_matched()
    else:
        model.load_weights(folder / name)
    return model


def go_on(folder, names):
    """Writes `gone_on.json`, the losses of each training from its file on."""
    found = {name: losses(load(folder, name), STEPS, 2 * STEPS) for name in names}
    (folder / "gone_on.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=list(OPTIMIZERS))
    parser.add_argument("--go_on", action="store_true")
    arguments = parser.parse_args()
    (go_on if arguments.go_on else write)(arguments.folder, arguments.names)
