r"""Inner steps a second of meta-training.

    python -m meta_training.benchmark --json

An inner step is one step of one task; both members of an antithetic pair count. Windows
have 50 steps, with second derivatives where the gradient is exact. The result is the
median of the repetitions. `--released` also times a run of the preset `released` with
fresh weights on its 101 tasks, from the start of the process to the end of its first
outer step, and reports its peak memory. There is no validation.
"""

import json
import os
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import flags, logging

from learned_optimizer.utils.measuring import peak_bytes
from meta_training import command
from meta_training.estimators import compiled_estimator, estimator
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.trajectories import Trajectories, TrajectoryConfig
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import load_trained
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.released.classifiers import FullyConnected

FLAGS = flags.FLAGS
STEPS = 50
# Name: task, estimator, elements a block.
BENCHMARKS = {
    "quadratic_20_x16": (Quadratic(20), "truncated", 20),
    "quadratic_20_x16_pes": (Quadratic(20), "pes", 20),
    "fully_connected_8_8_5_2_x16": (
        FullyConnected(8, (8, 5), batch_size=10),
        "truncated",
        8,
    ),
}


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_boolean("json", False, "One JSON object on the last line.")
    flags.DEFINE_integer("repetitions", 20, "Windows that are timed.", lower_bound=1)
    flags.DEFINE_integer("parts", 2, "Parts that are run side by side.", lower_bound=1)
    flags.DEFINE_boolean("released", False, "Also time the start of a `released` run.")
    flags.DEFINE_multi_enum(
        "only", [], [*BENCHMARKS, "none"], "The benchmarks to run; by default all."
    )


def inner_steps_per_second(task, estimator_name, block_size, repetitions) -> float:
    """The median over `repetitions` windows on 16 instances of a task."""
    weights = load_trained("default")
    estimator_class = estimator(estimator_name)
    batch = ProblemBatch(
        [task] * 16, block_size, estimator_class.replicas, parts=FLAGS.parts
    )
    options = TrajectoryConfig(
        min_window_steps=STEPS, mean_window_steps=STEPS, max_window_steps=STEPS
    )
    made, estimate = compiled_estimator(
        estimator_class, batch, weights.optimizer, UnrollConfig(max_steps=STEPS)
    )
    trajectories = Trajectories(batch, weights.optimizer, options, seed=0)
    carry = tf.nest.map_structure(tf.constant, trajectories.advance(0))
    meta_parameters = tf.nest.map_structure(tf.constant, weights.meta_parameters)
    state = tf.nest.map_structure(tf.constant, made.initial_state())
    steps = tf.constant(STEPS)

    def window(number):
        began = time.perf_counter()
        found = estimate(meta_parameters, carry, state, steps, tf.constant(number))
        losses = np.array(found.window.losses)
        if not np.all(np.isfinite(losses)):
            raise ValueError(f"losses must be finite. Received: {losses}")
        return time.perf_counter() - began

    window(0)
    seconds = statistics.median(window(number) for number in range(repetitions))
    return STEPS * batch.num_problems / seconds


def seconds_since_start() -> float:
    """Seconds since this process started, imports included; on Linux alone."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        # The second field, the name in parentheses, may hold spaces.
        fields_from_third = file.read().rpartition(")")[2].split()
    # Field 22: the start in clock ticks after that of the machine.
    started = int(fields_from_third[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def released_start() -> dict[str, float]:
    """Seconds from the start of the process to the first outer step, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        Trainer(preset("released"), folder).train(until=1)
    return {
        "released_first_outer_step_seconds": seconds_since_start(),
        "peak_memory_gigabytes": peak_bytes() / 1e9,
    }


def main(arguments):
    """Runs what the flags ask for."""
    command.prepare(arguments)
    results = released_start() if FLAGS.released else {}
    for name, (task, estimator_name, block_size) in BENCHMARKS.items():
        if FLAGS.only and name not in FLAGS.only:
            continue
        results[name] = inner_steps_per_second(
            task, estimator_name, block_size, FLAGS.repetitions
        )
        logging.info("%s: %.0f inner steps a second", name, results[name])
    for name, value in results.items():
        print(f"{name}: {value:,.1f}")
    if FLAGS.json:
        print(json.dumps({name: round(value, 1) for name, value in results.items()}))


if __name__ == "__main__":
    command.run(main, define_flags)
