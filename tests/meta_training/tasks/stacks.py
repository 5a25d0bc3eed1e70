"""Stacked tasks and their derivatives, for tests of tasks."""

import numpy as np
import tensorflow as tf

from meta_training.tasks import stack_instances, stack_parameters


def drawn(tasks, seed=0):
    """Stacked starts and instances of the tasks, minibatches where they draw any."""
    generator = np.random.default_rng(seed)
    instance = stack_instances([task.sample_instance(generator) for task in tasks])
    starts = [task.sample_parameters(generator) for task in tasks]
    parameters = [tf.constant(x) for x in stack_parameters(starts)]
    instance = {name: tf.constant(array) for name, array in instance.items()}
    first = tasks[0]
    if first.batch_size is not None:
        rows = generator.integers(first.rows, size=(len(tasks), first.batch_size))
        instance = first.minibatch(instance, tf.constant(rows, tf.int32))
    return parameters, instance


def differentiate(task, parameters, instance):
    """Objective, gradients, and the Hessian times the gradient's sign."""
    with tf.GradientTape() as outer:
        outer.watch(parameters)
        with tf.GradientTape() as inner:
            inner.watch(parameters)
            value = task.objective(parameters, instance)
        gradients = inner.gradient(value, parameters)
        signs = [tf.stop_gradient(tf.sign(gradient)) for gradient in gradients]
        pairs = zip(gradients, signs, strict=True)
        product = tf.add_n([tf.reduce_sum(x * sign) for x, sign in pairs])
    zero = tf.UnconnectedGradients.ZERO
    curvature = outer.gradient(product, parameters, unconnected_gradients=zero)
    return value, gradients, curvature
