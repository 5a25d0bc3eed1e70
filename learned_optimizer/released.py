"""TensorFlow 1 checkpoints of the released code: to weights of this package, and back.

    python -m learned_optimizer.released --checkpoint=PREFIX --output=FILE.npz
    python -m learned_optimizer.released --weights=NAME --output_checkpoint=PREFIX

The variables are those of the released code's scope `LOL`; the rest of its training
state, the slots of the meta-optimizer and the step, is left out. A checkpoint does not
store its architecture. The default is the released one; a flag for each field of
`Config` says where the training had another (`--attention`, `--level_sizes=10,20`).
"""

import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping

import tensorflow as tf
from absl import app, flags, logging

from learned_optimizer.interop.weight_files import FRESH_INITIAL_LEARNING_RATE
from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import (
    from_released_names,
    initial_meta_parameters,
    specifications,
    to_released_names,
)
from learned_optimizer.utils.atomic_write import temporary_sibling
from learned_optimizer.weights import Weights, load_weights, save_weights

SCOPE = "LOL/"
# The released defaults: there the global RNN sees the last tensor alone.
RELEASED_CONFIG = Config(global_rnn_input="last_tensor")
_GLOBAL_STEP = "global_step"


def read_checkpoint(
    checkpoint,
    name: str = "released",
    initial_learning_rate: float = FRESH_INITIAL_LEARNING_RATE,
    seed=None,
    **switches,
) -> Weights:
    """Weights from a checkpoint that the released code wrote.

    Args:
        checkpoint: Its prefix, or a folder, of which the latest is read.
        name: What to call the weights.
        initial_learning_rate: Where learning rates start by default; the released
            code draws them, from 1e-6 to 1e-2 unless told otherwise.
        seed: Of the initial states, which a checkpoint lacks with
            `learnable_start=False`.
        **switches: Fields of `Config` in which the checkpoint differs from
            `RELEASED_CONFIG`.

    Raises:
        ValueError: If it is no checkpoint, or if its variables are not finite or not
            those of this architecture.
    """
    path = os.fspath(checkpoint)
    reader = _opened(path)
    shapes = _own_variables(reader.get_variable_to_shape_map())
    config = dataclasses.replace(RELEASED_CONFIG, **switches)
    check_variables(shapes, config)
    try:
        arrays = {variable: reader.get_tensor(variable) for variable in shapes}
        step = None
        if reader.has_tensor(_GLOBAL_STEP):
            step = int(reader.get_tensor(_GLOBAL_STEP))
    except (tf.errors.OpError, RuntimeError) as error:
        raise ValueError(
            f"A checkpoint must be whole. Received: {path!r}: {_one_line(error)}"
        ) from error
    drawn = to_released_names(config, initial_meta_parameters(config, seed))
    source = {"checkpoint": pathlib.Path(path).name, "global_step": step}
    return Weights(
        name,
        config,
        from_released_names(config, drawn | arrays),
        initial_learning_rate,
        card={"source": "checkpoint of the released code"} | source,
    )


def write_checkpoint(weights: Weights, prefix) -> str:
    """A checkpoint from which the released code restores its optimizer.

    It holds what that code restores when it tests an optimizer, not what it needs to
    go on training. The released code has no setting for the mean over tensors as the
    global RNN's input: there, it sees the last one.

    Args:
        weights: Of an architecture that the released code has.
        prefix: Path to which TensorFlow adds `.index` and `.data-00000-of-00001`; of
            no checkpoint yet. In its folder `checkpoint` then names it as the latest,
            as a `Saver` does.

    Returns:
        The prefix.

    Raises:
        ValueError: If the released code cannot have these weights, or there is a
            checkpoint of this prefix.
    """
    if weights.config.nominal:
        raise ValueError(
            "A released checkpoint is of an architecture that the released code has, "
            "without a nominal learning rate. Received: weights "
            f"{weights.name!r} with {weights.config.nominal}"
        )
    prefix = pathlib.Path(prefix).absolute()
    # Two files cannot be replaced at once: a stop in between would leave the index of
    # one checkpoint with the numbers of another.
    if prefix.with_name(f"{prefix.name}.index").exists():
        raise ValueError(
            "The prefix of a checkpoint that is written must be new. "
            f"Received: {os.fspath(prefix)!r}, which is one already"
        )
    arrays = to_released_names(weights.config, weights.meta_parameters)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary_sibling(prefix)
    try:
        tf.raw_ops.SaveV2(
            prefix=os.fspath(aside / prefix.name),
            tensor_names=list(arrays),
            shape_and_slices=[""] * len(arrays),
            tensors=[tf.constant(array) for array in arrays.values()],
        )
        # The index last: without it there is no checkpoint.
        for file in sorted(aside.iterdir(), key=lambda file: file.suffix == ".index"):
            os.replace(file, prefix.with_name(file.name))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    tf.compat.v1.train.update_checkpoint_state(
        os.fspath(prefix.parent), prefix.name, all_model_checkpoint_paths=[prefix.name]
    )
    differing = [
        f"{field.name}={getattr(weights.config, field.name)!r}"
        for field in _switches()
        if getattr(weights.config, field.name) != getattr(RELEASED_CONFIG, field.name)
    ]
    if differing:
        logging.warning(
            "A released checkpoint does not hold its architecture. To read this one, "
            "give: %s",
            ", ".join(differing),
        )
    return os.fspath(prefix)


def check_variables(shapes: Mapping[str, tuple], config: Config) -> None:
    """Refuses shapes by released name, without slots, that are not of a config."""
    wanted = {spec.released_name: spec.shape for spec in specifications(config)}
    missing = sorted(set(wanted) - set(shapes))
    if not config.learnable_start:
        # Then the released code draws these anew in each run and stores none.
        missing = [name for name in missing if not name.endswith("/init_vector")]
    unknown = sorted(set(shapes) - set(wanted))
    misshapen = [
        f"{name!r} of shape {tuple(shapes[name])} instead of {shape}"
        for name, shape in wanted.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    if missing or misshapen or unknown:
        raise ValueError(
            "A released checkpoint must hold the variables of the architecture that "
            f"its flags name. Received: missing {missing}, misshapen "
            f"[{', '.join(misshapen)}], not part of it {unknown}, where the "
            f"architecture is {config}"
        )


def _opened(path):
    try:
        return tf.train.load_checkpoint(path)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            "`checkpoint` must be the prefix of a TensorFlow checkpoint, or a folder "
            f"with one. Received: {path!r}: {_one_line(error)}"
        ) from error


def _one_line(error) -> str:
    return " ".join(str(error).split())


def _own_variables(shapes) -> dict:
    """`{name: shape}` of the scope, without the slots of a meta-optimizer.

    TensorFlow 1 names a slot after its variable: `LOL/update_weights/RMSProp`.
    """
    own = {name: tuple(shape) for name, shape in shapes.items()}
    own = {name: shape for name, shape in own.items() if name.startswith(SCOPE)}
    return {
        name: shape for name, shape in own.items() if name.rpartition("/")[0] not in own
    }


def define_flags(values=flags.FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_string("checkpoint", None, "Prefix or folder to read.", values)
    flags.DEFINE_string("output", None, "Path of the .npz to write.", values)
    flags.DEFINE_string("weights", None, "Name or path of weights to read.", values)
    flags.DEFINE_string("output_checkpoint", None, "Prefix to write.", values)
    flags.DEFINE_float(
        "initial_learning_rate",
        FRESH_INITIAL_LEARNING_RATE,
        "Where learning rates start by default.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed", None, "Of initial states that are not stored.", flag_values=values
    )
    kinds = {
        bool: flags.DEFINE_boolean,
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for field in _switches():
        text = f"See `Config`; released: {getattr(RELEASED_CONFIG, field.name)}."
        define = kinds.get(field.type, flags.DEFINE_list)
        define(field.name, None, text, flag_values=values)


def _switches():
    """The fields of a config that a flag can say: the nominal rate is not released."""
    return [field for field in dataclasses.fields(Config) if field.name != "nominal"]


def main(arguments, values=flags.FLAGS):
    """Converts one way or the other, and prints what came out."""
    try:
        _convert(arguments, values)
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"released: {_one_line(error)}")


def _convert(arguments, values):
    reads, writes = (
        [values[name].value is not None for name in names]
        for names in (("checkpoint", "output"), ("weights", "output_checkpoint"))
    )
    if len(arguments) > 1 or sorted([reads, writes]) != [[False] * 2, [True] * 2]:
        raise ValueError(
            "Flags are --checkpoint and --output, or --weights and "
            f"--output_checkpoint. Received: {sys.argv[1:]}"
        )
    if all(writes):
        weights = load_weights(values.weights)
        print(write_checkpoint(weights, values.output_checkpoint))
        if weights.config.global_rnn_input != RELEASED_CONFIG.global_rnn_input:
            logging.warning("there, the global RNN will see the last tensor alone")
        return
    switches = {
        field.name: values[field.name].value
        for field in _switches()
        if values[field.name].value is not None
    }
    if "level_sizes" in switches:
        switches["level_sizes"] = tuple(map(int, switches["level_sizes"]))
    output = pathlib.Path(values.output)
    weights = read_checkpoint(
        values.checkpoint,
        output.name.removesuffix(".npz"),
        values.initial_learning_rate,
        values.seed,
        **switches,
    )
    save_weights(weights, output)
    print(f"{output}: {weights.config}")


if __name__ == "__main__":
    define_flags()
    logging.set_verbosity(logging.WARNING)
    app.run(main)
