"""The accuracy of classifiers with two classes."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.tasks.released.classifiers import FullyConnected, SoftmaxRegression


@pytest.mark.parametrize(
    "task", [FullyConnected(3, ()), SoftmaxRegression(3)], ids=lambda task: task.name
)
def test_two_class_accuracy_follows_the_loss(task):
    """The released accuracy read the second logit as class one: it was inverted."""
    kernel = np.zeros((1, 3, 2), np.float32)
    kernel[0, 0, 0] = 5.0
    parameters = [tf.constant(kernel), tf.zeros((1, 2))]
    data = np.array([[[1, 0, 0], [-1, 0, 0], [2, 1, 1], [-3, 1, 0]]], np.float32)
    right = {"data": data, "labels": np.array([[1, 0, 1, 0]], np.int32)}
    wrong = {"data": data, "labels": np.array([[0, 1, 0, 0]], np.int32)}
    assert task.accuracy(parameters, right) == 1.0
    assert task.accuracy(parameters, wrong) == 0.25
    assert task.objective(parameters, right) < task.objective(parameters, wrong)
