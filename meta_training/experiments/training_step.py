r"""Time and memory of one training step, in a separate process:

    python -m meta_training.experiments.training_step --optimizer=hierarchical_rnn \
        --batch_size=32

The step is forward pass, backward pass and update of a small residual network on random
images. The last line of the output is a JSON object with the median milliseconds of a
step and the peak memory of the process.
"""

import json
import os
import statistics
import time

from absl import app, flags

from learned_optimizer.utils.measuring import peak_bytes

SIZE = 32
CLASSES = 10
FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    ways = ["hierarchical_rnn", "adam"]
    flags.DEFINE_enum("optimizer", ways[0], ways, "What takes steps.")
    flags.DEFINE_string(
        "weights", "default", "Name or path of those of hierarchical_rnn."
    )
    flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
    flags.DEFINE_integer("width", 32, "Channels of the network.", lower_bound=1)
    flags.DEFINE_integer("repetitions", 10, "Counted steps.", lower_bound=1)


def network(width: int):
    """Three residual stages on images of 32 pixels; `width` channels at first."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    for stage in range(3):
        channels = width * 2**stage
        short = layers.Conv2D(channels, 1, strides=1 if stage == 0 else 2)(x)
        x = layers.Conv2D(
            channels, 3, 1 if stage == 0 else 2, "same", activation="relu"
        )(x)
        x = layers.Conv2D(channels, 3, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, short]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def main(arguments):
    """Measures and prints."""
    if len(arguments) > 1:
        raise app.UsageError(f"Arguments must be flags. Received: {arguments[1:]}")
    import keras
    import tensorflow as tf

    from learned_optimizer import HierarchicalRNN

    keras.utils.set_random_seed(0)
    model = network(FLAGS.width)
    optimizer = keras.optimizers.Adam()
    if FLAGS.optimizer == "hierarchical_rnn":
        optimizer = HierarchicalRNN(weights=FLAGS.weights)
    variables = model.trainable_variables
    optimizer.build(variables)
    images = tf.random.stateless_normal([FLAGS.batch_size, SIZE, SIZE, 3], (0, 1))
    labels = tf.range(FLAGS.batch_size) % CLASSES
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return loss

    for _ in range(2):
        step().numpy()
    seconds = []
    for _ in range(FLAGS.repetitions):
        began = time.perf_counter()
        step().numpy()
        # The optimizer's update may still be under way when the loss is known.
        optimizer.iterations.numpy()
        variables[-1].numpy()
        seconds.append(time.perf_counter() - began)
    found = {
        "optimizer": FLAGS.optimizer,
        "batch_size": FLAGS.batch_size,
        "parameters": model.count_params(),
        "milliseconds": statistics.median(seconds) * 1e3,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    define_flags()
    app.run(main)
