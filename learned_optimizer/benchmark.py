"""Time, compile time and memory of one optimizer step, beside Adam's.

    python -m learned_optimizer.benchmark --model=ResNet50V2 [--json]
    python -m learned_optimizer.benchmark --parameters=60000000
    python -m learned_optimizer.benchmark --parameters=32000 --tensors=500
    python -m learned_optimizer.benchmark --fit=embedding
    python -m learned_optimizer.benchmark --all

Two ways take turns on the same variables and gradients: `HierarchicalRNN` as it is
used, and Keras's Adam compiled. Peak memory is read in a child process of each. `--fit`
times whole steps of `fit` on a small model. `--all` runs the table of `CASES`, each in
a process of its own. Needs the TensorFlow backend; measure on a quiet machine.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from learned_optimizer.utils.measuring import (
    peak_bytes,
    reset_peak,
    resident_bytes,
    run_module,
)

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string(
        "model",
        None,
        "Whose variables are updated: a model of keras.applications, or vit_b16.",
    )
    flags.DEFINE_enum("fit", None, FITTED, "Time `fit` on this model instead.")
    flags.DEFINE_bool("all", False, "Run the table of cases.")
    flags.DEFINE_enum(
        "state_dtype", "float32", ["float32", "bfloat16"], "As of HierarchicalRNN."
    )
    flags.DEFINE_bool("pieces", False, "Run as on an accelerator.")
    flags.DEFINE_integer(
        "parameters",
        None,
        "Number of parameters of made-up variables, instead of a model.",
    )
    flags.DEFINE_integer("tensors", 1, "How many variables those are.")
    flags.DEFINE_string(
        "weights", "default", "Name or path of the weights of the learned optimizer."
    )
    flags.DEFINE_integer("repetitions", 10, "Counted steps of each.")
    flags.DEFINE_integer("warm_ups", 2, "Steps of each before those.")
    flags.DEFINE_bool("json", False, "End with one JSON object on a line.")
    flags.DEFINE_string("peak", None, "Internal: measure this way's peak memory.")


def variables_of(model, parameters, tensors):
    """The variables to update: a model's trainable ones, or made-up ones."""
    import keras

    if model == "vit_b16":
        shapes = vit_b16_shapes()
        return [keras.Variable(np.zeros(shape, np.float32)) for shape in shapes]
    if model:
        if not hasattr(keras.applications, model):
            raise app.UsageError(
                f"--model must name a model of keras.applications. Received: {model}"
            )
        return getattr(keras.applications, model)(weights=None).trainable_variables
    sizes = [len(part) for part in np.array_split(np.arange(parameters), tensors)]
    return [keras.Variable(np.zeros(size, np.float32)) for size in sizes]


def vit_b16_shapes() -> list[tuple[int, ...]]:
    """The shapes of ViT-B/16's variables, 86.6 million parameters.

    For 224 px and 1,000 classes (Dosovitskiy et al. 2021, table 1).
    """
    width, hidden, tokens = 768, 3072, 1 + (224 // 16) ** 2
    normalization = [(width,), (width,)]
    block = [
        *normalization,
        *((width, 3 * width), (3 * width,), (width, width), (width,)),
        *normalization,
        *((width, hidden), (hidden,), (hidden, width), (width,)),
    ]
    return [
        *((16, 16, 3, width), (width,), (1, 1, width), (1, tokens, width)),
        *(12 * block),
        *normalization,
        *((width, 1000), (1000,)),
    ]


def fit_milliseconds(name, optimizer, repetitions) -> float:
    """The median time of a step of `fit`, after 20 others.

    The model "dense" is `Dense(10)` on 20 features; "embedding" is 100,000 rows of 16,
    looked up 640 times a step by a power law, and `Dense(10)`.
    """
    import keras
    import tensorflow as tf

    generator = np.random.default_rng(0)
    if name == "dense":
        inputs = generator.normal(size=(32, 20)).astype(np.float32)
        layers = []
    else:
        # By rank: the row of rank r is looked up in proportion to 1 / r.
        chances = 1 / np.arange(1, 100_001)
        chances /= chances.sum()
        inputs = generator.choice(100_000, (8 * 32, 20), p=chances)
        layers = [
            keras.layers.Embedding(100_000, 16),
            keras.layers.GlobalAveragePooling1D(),
        ]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    data = tf.data.Dataset.from_tensor_slices(
        (inputs, generator.integers(0, 10, len(inputs)))
    )
    ends = []
    model.fit(
        data.batch(32).cache().repeat(),
        steps_per_epoch=20 + repetitions,
        callbacks=keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
        ),
        verbose=0,
    )
    return 1e3 * statistics.median(np.diff(ends)[-repetitions:])


def make_step(way, variables, gradients, weights, state_dtype):
    """A function that makes one step as users have it, and the bytes of the state.

    The gradients are the same at every step; padding counts as state.
    """
    import keras
    import tensorflow as tf

    from learned_optimizer import HierarchicalRNN

    if way == "adam":
        optimizer = keras.optimizers.Adam()
    else:
        optimizer = HierarchicalRNN(weights=weights, state_dtype=state_dtype)
    optimizer.build(variables)

    # The learned optimizer compiles its step by itself.
    @tf.function(jit_compile=True if way == "adam" else None)
    def step():
        optimizer.apply(gradients, variables)
        return tf.convert_to_tensor(optimizer.iterations.value)

    state_bytes = sum(
        math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        for variable in optimizer.variables
    )
    return step, state_bytes


WAYS = ("hierarchical_rnn", "adam")
FITTED = ("dense", "embedding")
_SIZES = (1_000_000, 10_000_000, 30_000_000, 100_000_000)
# What `--all` measures: a name, and flags of this command.
CASES = {
    "Dense(10) in fit": ["--fit=dense"],
    "embedding 100,000 x 16 in fit": ["--fit=embedding"],
    "500 tensors of 64": ["--parameters=32000", "--tensors=500"],
    "ResNet50V2": ["--model=ResNet50V2"],
    "ResNet50V2, bfloat16": ["--model=ResNet50V2", "--state_dtype=bfloat16"],
    "ResNet50V2, pieces": ["--model=ResNet50V2", "--pieces"],
    "ViT-B/16": ["--model=vit_b16"],
    **{f"{size:,}": [f"--parameters={size}"] for size in _SIZES},
}


def timed(step) -> float:
    """Seconds that one step takes, waiting for its result."""
    start = time.perf_counter()
    step().numpy()
    return time.perf_counter() - start


def make_gradients(variables):
    """Normal gradients, the same numbers every time."""
    import tensorflow as tf

    return [
        tf.random.stateless_normal(tuple(variable.shape), (index, 0))
        for index, variable in enumerate(variables)
    ]


def peak_memory(way, problem, weights, state_dtype) -> dict:
    """Peak of this process's memory over three steps, above what must be there.

    `problem` holds the arguments of `variables_of`.
    """
    variables = variables_of(*problem)
    gradients = make_gradients(variables)
    parameters = 4 * sum(math.prod(variable.shape) for variable in variables)
    before = resident_bytes()
    step, state_bytes = make_step(way, variables, gradients, weights, state_dtype)
    reset_peak()
    for _ in range(3):
        step().numpy()
    # Parameters and gradients were there before.
    return {
        "peak_bytes": peak_bytes(),
        "extra_peak_bytes": peak_bytes() - before - state_bytes,
        "state_bytes": state_bytes,
        "parameter_bytes": parameters,
    }


def peak_in_child(way, problem, weights, state_dtype) -> dict:
    """`peak_memory` of a process of its own."""
    flags_of_problem = zip(("model", "parameters", "tensors"), problem, strict=True)
    return run_module(
        "learned_optimizer.benchmark",
        peak=way,
        weights=weights,
        state_dtype=state_dtype,
        **dict(flags_of_problem),
    )


def measure(
    problem, repetitions, warm_ups, weights, state_dtype="float32"
) -> dict[str, dict]:
    """All figures of each way; `warm_ups` come after the step that compiles."""
    variables = variables_of(*problem)
    gradients = make_gradients(variables)
    parameters = sum(math.prod(variable.shape) for variable in variables)
    peaks = {way: peak_in_child(way, problem, weights, state_dtype) for way in WAYS}
    found = {way: {"parameters": parameters, **peaks[way]} for way in WAYS}
    steps, seconds = {}, {way: [] for way in WAYS}
    for way in WAYS:
        steps[way], state_bytes = make_step(
            way, variables, gradients, weights, state_dtype
        )
        found[way]["state_bytes_per_parameter"] = state_bytes / parameters
        found[way]["first_step_seconds"] = timed(steps[way])
    for turn in range(warm_ups + repetitions):
        for way in WAYS:
            duration = timed(steps[way])
            if turn >= warm_ups:
                seconds[way].append(duration)
    for way in WAYS:
        median = statistics.median(seconds[way])
        found[way]["milliseconds"] = median * 1e3
        found[way]["ns_per_parameter"] = median / parameters * 1e9
        found[way]["compile_seconds"] = found[way]["first_step_seconds"] - median
    return found


def main(argv):
    """Measures and prints; see the module's docstring."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {argv[1:]}")
    if [FLAGS.model, FLAGS.parameters, FLAGS.fit, FLAGS.all or None].count(None) != 3:
        raise app.UsageError("Give one of --model, --parameters, --fit and --all.")
    if FLAGS.all:
        for name, case in CASES.items():
            print(f"\n{name}:", flush=True)
            subprocess.run(
                [sys.executable, "-m", "learned_optimizer.benchmark"]
                + [*case, f"--weights={FLAGS.weights}"],
                check=True,
            )
        return
    if FLAGS.pieces:
        from learned_optimizer.keras_step.model_layout import FORCE_PIECES

        # The child processes inherit it.
        os.environ[FORCE_PIECES] = "1"
    if FLAGS.fit:
        _print_fit()
        return
    problem = (FLAGS.model, FLAGS.parameters, FLAGS.tensors)
    if FLAGS.peak:
        peak = peak_memory(FLAGS.peak, problem, FLAGS.weights, FLAGS.state_dtype)
        print(json.dumps(peak))
        return
    numbers = FLAGS.repetitions, FLAGS.warm_ups
    found = measure(problem, *numbers, FLAGS.weights, FLAGS.state_dtype)
    parameters = found["hierarchical_rnn"]["parameters"]
    name = FLAGS.model or f"{FLAGS.tensors} tensors"
    print(f"{name}, {parameters:,} parameters, median of {FLAGS.repetitions}")
    print(
        f"{'':18}{'ms':>9}{'ns/param':>10}{'compile s':>11}"
        f"{'state B/param':>15}{'peak GB':>9}{'extra GB':>10}"
    )
    for way, row in found.items():
        print(
            f"{way:18}{row['milliseconds']:9.1f}{row['ns_per_parameter']:10.1f}"
            f"{row['compile_seconds']:11.1f}{row['state_bytes_per_parameter']:15.1f}"
            f"{row['peak_bytes'] / 1e9:9.2f}{row['extra_peak_bytes'] / 1e9:10.2f}"
        )
    if FLAGS.json:
        ours = found["hierarchical_rnn"]
        del ours["first_step_seconds"], ours["parameter_bytes"], ours["state_bytes"]
        adam = found["adam"]["ns_per_parameter"]
        summary = {**ours, "adam_ns_per_parameter": adam}
        print(json.dumps(summary))


def _print_fit():
    import keras

    from learned_optimizer import HierarchicalRNN

    ours = HierarchicalRNN(weights=FLAGS.weights, state_dtype=FLAGS.state_dtype)
    for optimizer in (ours, keras.optimizers.Adam()):
        milliseconds = fit_milliseconds(FLAGS.fit, optimizer, 20 * FLAGS.repetitions)
        print(f"{optimizer.name:18}{milliseconds:9.2f} ms a step of fit, {FLAGS.fit}")


if __name__ == "__main__":
    define_flags()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    app.run(main)
