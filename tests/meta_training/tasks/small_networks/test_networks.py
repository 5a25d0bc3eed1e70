"""The accuracy of classifiers with many classes."""

import numpy as np
import pytest
import tensorflow as tf

from meta_training.tasks.small_networks.perceptrons import Perceptron


def test_many_class_accuracy():
    task = Perceptron(2, (), 3)
    parameters = [tf.constant([[[1.0, 0, 0], [0, 1, 0]]]), tf.zeros((1, 3))]
    instance = {
        "data": np.array([[[2, 1], [1, 2], [-1, -2]]], np.float32),
        "labels": np.array([[0, 1, 1]], np.int32),
        "activation": np.zeros((1, 5), np.float32),
    }
    accuracy = task.accuracy(parameters, instance).numpy()
    assert accuracy == pytest.approx([2 / 3])
