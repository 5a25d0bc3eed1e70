"""A small network trained by Keras, step by step, on the draw of a stacked run."""

import keras
import tensorflow as tf

from meta_training.tasks.small_networks.perceptrons import Perceptron

NETWORK = Perceptron(6, (7, 5), 3, rows=50, batch_size=8)
STEPS = 50


def train_with_keras(optimizer, draws, draw, steps):
    """The final values and losses of one draw of `NETWORK`."""
    variables = [
        keras.Variable(value[draw], name=f"tensor_{number}")
        for number, value in enumerate(draws.start)
    ]
    instance = {name: array[draw : draw + 1] for name, array in draws.instance.items()}

    def objective(instance):
        values = [variable.value[None] for variable in variables]
        return NETWORK.objective(values, instance)[0]

    @tf.function
    def train_step(rows):
        with tf.GradientTape() as tape:
            loss = objective(NETWORK.minibatch(instance, rows))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return objective(instance)

    optimizer.build(variables)
    losses = [float(objective(instance))]
    for rows in draws.row_indices[:steps, draw : draw + 1]:
        losses.append(float(train_step(tf.constant(rows))))
    return [variable.numpy() for variable in variables], losses
