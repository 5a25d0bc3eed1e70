"""Writes the optimizer as a SavedModel, for programs without Keras and Python.

    python -m learned_optimizer.export --output=DIR [--weights=NAME]

`docs/export.md` says how to use it.
"""

import sys

import tensorflow as tf
from absl import app, flags, logging

from learned_optimizer.interop.saved_model_files import export_weights
from learned_optimizer.weights import load_weights


def define_flags(values=flags.FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string(
        "output", None, "Folder of the SavedModel.", values, required=True
    )
    flags.DEFINE_string("weights", "default", "Name or path of weights.", values)


def main(arguments, values=flags.FLAGS):
    """Exports, and prints where to."""
    try:
        if len(arguments) > 1:
            raise ValueError(f"Arguments must be flags. Received: {arguments[1:]}")
        print(export_weights(load_weights(values.weights), values.output))
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"export: {' '.join(str(error).split())}")


if __name__ == "__main__":
    define_flags()
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("WARNING")
    app.run(main)
