"""Trains one small network twice, with `HierarchicalRNN()` and with `Adam()`.

    python examples/digits.py --steps=2000 --output=digits.png

The data are scikit-learn's digits: 1,797 handwritten digits, scanned and reduced to
8 x 8 pixels, of which 360 are kept for the test. Both runs start from the same weights
and see the same batches in the same order, and neither optimizer is tuned: each is
made with its defaults. The script ends with a table and writes the two curves of the
training loss, measured on the whole training set, to a PNG file.
"""

import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from learned_optimizer import HierarchicalRNN

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 2000, "Steps of each run.", lower_bound=1)
flags.DEFINE_integer(
    "batch_size", 32, "Images a step.", lower_bound=1, upper_bound=1437
)
flags.DEFINE_integer("seed", 0, "Seed of the initial weights and of the batches.")
flags.DEFINE_string(
    "output",
    str(pathlib.Path(__file__).parent / "output" / "digits.png"),
    "Where the figure goes, a .png file.",
)

OPTIMIZERS = {"HierarchicalRNN()": HierarchicalRNN, "Adam()": keras.optimizers.Adam}
COLOURS = {"HierarchicalRNN()": "#d1495b", "Adam()": "#30638e"}


def load_data():
    """The digits: `(train_images, train_labels), (test_images, test_labels)`.

    Images are `[n, 8, 8, 1]` float32 in [0, 1]. The split is always the same.
    """
    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype("float32")
    labels = digits.target.astype("int32")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    return (train_images, train_labels), (test_images, test_labels)


def build_model():
    """A convolutional network of 38,000 parameters; it returns logits `[n, 10]`."""
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    hidden = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(hidden)
    hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.Flatten()(hidden)
    hidden = keras.layers.Dense(64, activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


class Batches(keras.utils.PyDataset):
    """`steps` batches, drawn epoch by epoch without replacement, the same each time."""

    def __init__(self, images, labels, steps, batch_size, seed):
        super().__init__()
        self.images, self.labels = images, labels
        random = np.random.default_rng(seed)
        per_epoch = len(images) // batch_size
        epochs = -(-steps // per_epoch)
        order = [
            random.permutation(len(images))[: per_epoch * batch_size]
            for _ in range(epochs)
        ]
        self.order = np.concatenate(order).reshape(-1, batch_size)[:steps]

    def __len__(self):
        return len(self.order)

    def __getitem__(self, step):
        rows = self.order[step]
        return self.images[rows], self.labels[rows]


def measured_steps(steps):
    """About forty steps, evenly spaced on a logarithmic axis, the last among them."""
    return {int(step) for step in np.geomspace(1, steps, 40).round()} | {
        step for step in (10, 100, 1000) if step <= steps
    }


class TrainingCurve(keras.callbacks.Callback):
    """Records the loss on the whole training set and the duration of each step.

    Attributes:
        loss: {step: mean loss on the training set after that many steps}.
        durations: seconds of each step, without the measurements of the loss.
    """

    def __init__(self, images, labels, steps):
        super().__init__()
        self.images, self.labels, self.steps = images, labels, steps
        self.measured = measured_steps(steps)
        self.loss, self.durations = {}, []

    def measure(self, step):
        """Enters the training loss of this moment into the curve."""
        logits = self.model.predict_on_batch(self.images).astype("float64")
        logits -= logits.max(axis=1, keepdims=True)
        log_likelihood = logits[np.arange(len(logits)), self.labels] - np.log(
            np.exp(logits).sum(axis=1)
        )
        self.loss[step] = -log_likelihood.mean()

    def on_train_begin(self, logs=None):
        """Measures the untrained network."""
        self.measure(0)
        self.progress = keras.utils.Progbar(
            self.steps,
            interval=0.2 if os.isatty(1) else 10,
            stateful_metrics=["training loss"],
        )

    def on_train_batch_begin(self, batch, logs=None):
        """Starts the watch."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stops the watch, then measures the loss if it is time to."""
        self.durations.append(time.perf_counter() - self.started)
        step = batch + 1
        if step in self.measured:
            self.measure(step)
        latest = self.loss[max(self.loss)]
        self.progress.update(step, [("training loss", latest)])


def train(name, initial_weights, train_data, test_data):
    """One run. Returns its curve and the accuracy on the test set, in [0, 1]."""
    print(f"\n{name}", flush=True)
    keras.utils.set_random_seed(FLAGS.seed)
    model = build_model()
    model.set_weights(initial_weights)
    model.compile(
        optimizer=OPTIMIZERS[name](),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    curve = TrainingCurve(*train_data, FLAGS.steps)
    batches = Batches(*train_data, FLAGS.steps, FLAGS.batch_size, FLAGS.seed)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[curve])
    images, labels = test_data
    accuracy = (model.predict_on_batch(images).argmax(axis=1) == labels).mean()
    return curve, accuracy


def format_table(results):
    """The results as lines of text, one column a run."""
    steps = sorted(
        {step for step in (10, 100, 1000) if step < FLAGS.steps} | {0, FLAGS.steps}
    )
    rows = [("", list(results))]
    for step in steps:
        losses = [f"{curve.loss[step]:.4g}" for curve, _ in results.values()]
        rows.append((f"training loss at step {step:,}", losses))
    accuracies = [f"{accuracy:.1%}" for _, accuracy in results.values()]
    rows.append(("test accuracy", accuracies))
    durations = [np.array(curve.durations) for curve, _ in results.values()]
    rows.append(("seconds in all", [f"{d.sum():.1f}" for d in durations]))
    rows.append(("  of which the first step", [f"{d[0]:.1f}" for d in durations]))
    rows.append(
        ("milliseconds a step", [f"{np.median(d) * 1e3:.1f}" for d in durations])
    )
    return "\n".join(
        f"{label:<28}" + "".join(f"{cell:>19}" for cell in cells)
        for label, cells in rows
    )


def plot(results, path):
    """Draws the training loss of each run against its steps, both logarithmic."""
    plt.rcParams.update({"font.size": 17, "axes.spines.top": False})
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    for name, (curve, accuracy) in results.items():
        steps = sorted(step for step in curve.loss if step)
        axes.plot(
            steps,
            [curve.loss[step] for step in steps],
            color=COLOURS[name],
            linewidth=3,
            label=f"{name}: test accuracy {accuracy:.1%}",
        )
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="training loss")
    axes.set_title("Digits, small convolutional network, nothing tuned", fontsize=18)
    axes.spines["right"].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv):
    """Runs both optimizers, prints the table, writes the figure."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}.")
    train_data, test_data = load_data()
    keras.utils.set_random_seed(FLAGS.seed)
    model = build_model()
    print(
        f"{len(train_data[0]):,} training images, {len(test_data[0])} test images, "
        f"{model.count_params():,} parameters, {FLAGS.steps:,} steps of "
        f"{FLAGS.batch_size} images."
    )
    initial_weights = model.get_weights()
    results = {
        name: train(name, initial_weights, train_data, test_data) for name in OPTIMIZERS
    }
    path = pathlib.Path(FLAGS.output)
    plot(results, path)
    print(f"\n{format_table(results)}\n\nThe two curves: {path}")


if __name__ == "__main__":
    app.run(main)
