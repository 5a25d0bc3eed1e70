"""Trains a language model on text of which many words are rare, or never occur.

    python examples/rare_words.py --steps=1000

The text is the source of `doctest`, a module of Python's own library. The vocabulary
holds the words of `difflib` too, so some rows of the embedding are never looked up.
The script prints, for each optimizer, the training loss and how far the rows have moved
(root mean square), by how often their word occurs.
"""

import difflib
import doctest
import inspect
import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags

from learned_optimizer import HierarchicalRNN

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 1000, "Steps of each run.", lower_bound=1)
flags.DEFINE_list(
    "weights", ["default-v2", "default"], "Learned optimizers, beside Adam."
)
WINDOW, BATCH_SIZE = 16, 32
OCCURRENCES = {"never": (0, 1), "1 to 3 times": (1, 4), "more often": (4, 1 << 30)}


def words_of(module):
    """The words and signs of a module's source, in their order."""
    return re.findall(r"[A-Za-z]+|[^\sA-Za-z]", inspect.getsource(module))


def build_model(vocabulary):
    """A network that predicts each next word: logits `[n, WINDOW, vocabulary]`."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((WINDOW,), dtype="int32"),
            keras.layers.Embedding(vocabulary, 32),
            keras.layers.GRU(64, return_sequences=True),
            keras.layers.Dense(vocabulary),
        ]
    )


def windows(tokens, starts):
    """Words and the words that follow them, `[len(starts), WINDOW]` each."""
    positions = np.asarray(starts)[:, None] + np.arange(WINDOW)
    return tokens[positions], tokens[positions + 1]


def main(_):
    """Trains with each optimizer and prints a table."""
    text = words_of(doctest)
    vocabulary = sorted({*text, *words_of(difflib)})
    numbers = {word: number for number, word in enumerate(vocabulary)}
    text = np.array([numbers[word] for word in text])
    counts = np.bincount(text, minlength=len(numbers))
    groups = {
        name: (counts >= low) & (counts < high)
        for name, (low, high) in OCCURRENCES.items()
    }
    starts = np.random.default_rng(0).integers(
        0, len(text) - WINDOW, BATCH_SIZE * FLAGS.steps
    )
    print(
        f"{len(numbers):,} words:",
        ", ".join(f"{np.sum(rows)} occur {name}" for name, rows in groups.items()),
    )
    columns = ("training loss", *(f"moved: {name}" for name in groups))
    print(f"{'':32}", *(f"{column:>20}" for column in columns))
    optimizers = {"Adam()": keras.optimizers.Adam()}
    for name in FLAGS.weights:
        optimizers[f"HierarchicalRNN({name!r})"] = HierarchicalRNN(weights=name)
    for name, optimizer in optimizers.items():
        model = build_model(len(numbers))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        before = model.layers[0].get_weights()[0]
        model.fit(
            *windows(text, starts), batch_size=BATCH_SIZE, shuffle=False, verbose=0
        )
        moved = model.layers[0].get_weights()[0] - before
        everywhere = range(0, len(text) - WINDOW, WINDOW)
        loss = model.evaluate(*windows(text, everywhere), verbose=0)
        distances = [np.sqrt(np.mean(moved[rows] ** 2)) for rows in groups.values()]
        print(f"{name:32}", *(f"{number:20.4g}" for number in [loss, *distances]))


if __name__ == "__main__":
    app.run(main)
