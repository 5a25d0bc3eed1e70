"""Trains a small residual network and evaluates it while it trains.

    python examples/running_averages.py --weights=default-v2,default

The data are scikit-learn's digits at 24 pixels. The network has 7 layers with batch
normalisation and 20,000 parameters. Every 250 steps the script prints the loss of the
training set with the statistics of each batch, as in training, and under the running
averages, as `evaluate` has it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

from learned_optimizer import HierarchicalRNN

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 2000, "Steps of each run.", lower_bound=250)
flags.DEFINE_list(
    "weights", ["default-v2", "default"], "Learned optimizers, beside Adam."
)
EVERY, BATCH_SIZE = 250, 32
LAYERS = keras.layers


def build_model():
    """Blocks of 8, 16 and 32 filters, each halving the image but the first."""
    keras.utils.set_random_seed(0)

    def convolve(inputs, filters, size, strides=1):
        layer = LAYERS.Conv2D(filters, size, strides, padding="same", use_bias=False)
        return layer(inputs)

    def normalise(inputs):
        return LAYERS.ReLU()(LAYERS.BatchNormalization()(inputs))

    inputs = keras.Input((24, 24, 1))
    hidden = convolve(inputs, 8, 3)
    for filters in (8, 16, 32):
        strides = 1 if filters == 8 else 2
        shortcut = hidden if strides == 1 else convolve(hidden, filters, 1, strides)
        inner = convolve(normalise(hidden), filters, 3, strides)
        hidden = shortcut + convolve(normalise(inner), filters, 3)
    pooled = LAYERS.GlobalAveragePooling2D()(normalise(hidden))
    return keras.Model(inputs, LAYERS.Dense(10)(pooled))


def main(_):
    """Trains with each optimizer and prints two rows of losses for it."""
    digits = load_digits()
    x = np.kron(digits.images / 16, np.ones((3, 3)))[..., None].astype(np.float32)
    y = digits.target
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizers = {
        f"Adam({rate:g})": keras.optimizers.Adam(rate) for rate in (1e-3, 1e-2)
    }
    for name in FLAGS.weights:
        optimizers[name] = HierarchicalRNN(weights=name)
        optimizers[f"{name}, total_steps"] = HierarchicalRNN(
            weights=name, total_steps=FLAGS.steps
        )
    batches = np.arange(len(x) // BATCH_SIZE * BATCH_SIZE).reshape(-1, BATCH_SIZE)
    times = range(EVERY, FLAGS.steps + 1, EVERY)
    print(f"{'':32}", *(f"{step:>10,}" for step in times))
    for name, optimizer in optimizers.items():
        model = build_model()
        model.compile(optimizer, loss)
        draws = np.random.default_rng(0)
        found = []
        for _ in times:
            rows = draws.integers(0, len(x), EVERY * BATCH_SIZE)
            model.fit(x[rows], y[rows], BATCH_SIZE, shuffle=False, verbose=0)
            kept = model.get_weights()
            trained = [float(loss(y[i], model(x[i], training=True))) for i in batches]
            # A pass in training mode moves the averages.
            model.set_weights(kept)
            found.append((np.mean(trained), model.evaluate(x, y, verbose=0)))
        for way, losses in zip(
            ("in training", "evaluate"), np.transpose(found), strict=True
        ):
            print(f"{name + ', ' + way:32}", *(f"{number:10.2g}" for number in losses))


if __name__ == "__main__":
    app.run(main)
