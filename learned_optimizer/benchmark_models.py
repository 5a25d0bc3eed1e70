"""Time and memory of many models in one process, beside Adam's.

    python -m learned_optimizer.benchmark_models --parameters=200
    python -m learned_optimizer.benchmark_models --parameters=40000 --steps=300 \
        --models=3 --ways=compiled,not_compiled

Each model is built, compiled and fitted for a few steps, as in a search over
architectures; all have the same network. Each way has a process of its own. Needs the
TensorFlow backend and Linux, which tells the resident memory.
"""

import gc
import json
import math
import os
import statistics
import time

from absl import app, flags

from learned_optimizer.utils.measuring import resident_bytes, run_module

FLAGS = flags.FLAGS
WAYS = ("hierarchical_rnn", "compiled", "not_compiled", "adam")
# Models until which what they share may still grow.
MOST_WARM_UPS = 10


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_integer("parameters", 200, "Parameters of a model, about.")
    flags.DEFINE_integer("models", 50, "Models of each way, two or more.")
    flags.DEFINE_integer("steps", 3, "Steps of `fit`, of 32 examples each.")
    flags.DEFINE_list("ways", ["hierarchical_rnn", "adam"], f"Of {', '.join(WAYS)}.")
    flags.DEFINE_bool("json", False, "End with one JSON object on a line.")
    flags.DEFINE_bool("in_process", False, "Internal: measure the one way here.")


def make_optimizer(way):
    """The optimizer of a way."""
    import keras

    from learned_optimizer import HierarchicalRNN

    if way == "adam":
        return keras.optimizers.Adam()
    compiles = {"compiled": True, "not_compiled": False}
    return HierarchicalRNN(jit_compile=compiles.get(way, "auto"))


def fit_model(way, parameters, steps) -> int:
    """Fits a new perceptron of two equal layers; returns its number of parameters."""
    import keras
    import numpy as np

    # Of u units each it has u² + 11 u + 1 parameters.
    units = max(1, round(math.sqrt(parameters + 29.25) - 5.5))
    hidden = [keras.layers.Dense(units, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(1)])
    model.compile(make_optimizer(way), loss="mse")
    inputs = np.random.default_rng(0).standard_normal((32 * steps, 8))
    inputs = inputs.astype(np.float32)
    model.fit(inputs, inputs[:, :1], batch_size=32, verbose=0)
    return model.count_params()


def measure(way, parameters, models, steps) -> dict:
    """Times of the first model, medians of the others, and bytes that each leaves.

    Resident memory is compared after up to ten models and after all.
    """
    cpu_seconds, seconds, resident = [], [], [resident_bytes()]
    for _ in range(models):
        start, cpu_start = time.perf_counter(), time.process_time()
        parameters_made = fit_model(way, parameters, steps)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        gc.collect()
        resident.append(resident_bytes())
    warm_ups = min(MOST_WARM_UPS, models - 1)
    growth = resident[-1] - resident[warm_ups]
    return {
        "parameters": parameters_made,
        "cpu_seconds": statistics.median(cpu_seconds[1:]),
        "seconds": statistics.median(seconds[1:]),
        "first_seconds": seconds[0],
        "bytes_of_first": resident[1] - resident[0],
        "bytes_per_model": growth / (models - warm_ups),
    }


def main(argv):
    """Measures and prints; see the module's docstring."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are known. Received: {argv[1:]}")
    if set(FLAGS.ways) - set(WAYS):
        raise app.UsageError(f"--ways must be of {WAYS}. Received: {FLAGS.ways}")
    if FLAGS.models < 2:
        raise app.UsageError(f"--models must be 2 or more. Received: {FLAGS.models}")
    numbers = {name: FLAGS[name].value for name in ("parameters", "models", "steps")}
    if FLAGS.in_process:
        print(json.dumps(measure(FLAGS.ways[0], **numbers)))
        return
    module = "learned_optimizer.benchmark_models"
    found = {
        way: run_module(module, ways=way, in_process=True, **numbers)
        for way in FLAGS.ways
    }
    print(
        f"{'':18}{'parameters':>11}{'first s':>9}{'s':>8}{'CPU s':>8}"
        f"{'MB of first':>13}{'MB a model':>12}"
    )
    for way, row in found.items():
        print(
            f"{way:18}{row['parameters']:11,}{row['first_seconds']:9.2f}"
            f"{row['seconds']:8.2f}{row['cpu_seconds']:8.2f}"
            f"{row['bytes_of_first'] / 1e6:13.1f}{row['bytes_per_model'] / 1e6:12.1f}"
        )
    if FLAGS.json:
        print(json.dumps(found))


if __name__ == "__main__":
    define_flags()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    app.run(main)
