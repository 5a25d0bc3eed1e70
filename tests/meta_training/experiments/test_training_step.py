"""Time and memory of a training step, in a separate process."""

import pytest

from meta_training.experiments import cost


@pytest.mark.slow
def test_a_training_step_is_measured_in_a_process_of_its_own():
    optimizer = "hierarchical_rnn"
    found = cost.run_module(
        "meta_training.experiments.training_step",
        optimizer=optimizer,
        batch_size=2,
        width=1,
        repetitions=2,
    )
    # Kernels and biases: the first convolution; in each stage the short cut and two
    # convolutions; the classifier.
    channels = [1, 1, 2, 4]
    parameters = 9 * 3 * 1 + 1 + 4 * 10 + 10
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        parameters += (inputs + 9 * inputs + 9 * outputs) * outputs + 3 * outputs
    assert found["parameters"] == parameters
    assert found["optimizer"] == optimizer and found["batch_size"] == 2
    assert found["milliseconds"] > 0 and found["peak_bytes"] > 1e8
