"""The number of steps that a training will make: saved, restored, refused."""

import keras
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from tests.learned_optimizer import by_hand
from tests.learned_optimizer.by_hand import Problem, fit, make_model, make_optimizer


def trained(problem, total_steps=8):
    model = make_model(problem)
    fit(model, make_optimizer(), problem, epochs=2)
    model.optimizer.total_steps = total_steps
    return model


def test_total_steps_are_saved_and_those_given_win(tmp_path):
    problem = Problem.make(steps=4)
    model = trained(problem)
    model.save(tmp_path / "model.keras")
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.total_steps == 8
    for given, wanted in ((None, 8), (20, 20)):
        other = make_model(problem)
        other.compile(make_optimizer(total_steps=given), loss=by_hand.mean_output)
        other.optimizer.build(other.trainable_variables)
        other.load_weights(path)
        assert other.optimizer.total_steps == wanted
        again = HierarchicalRNN.from_config(other.optimizer.get_config())
        assert again.total_steps == given


def test_total_steps_are_in_a_checkpoint(tmp_path):
    problem = Problem.make(steps=4)
    model = trained(problem)
    without = trained(problem, None)
    for source, given, wanted in (
        (model, None, 8),
        (model, 20, 20),
        (without, None, None),
    ):
        path = tf.train.Checkpoint(optimizer=source.optimizer).save(tmp_path / "c")
        optimizer = make_optimizer(total_steps=given)
        optimizer.build(make_model(problem).trainable_variables)
        status = tf.train.Checkpoint(optimizer=optimizer).restore(path)
        status.assert_existing_objects_matched()
        assert optimizer.total_steps == wanted


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "8"])
def test_bad_total_steps_are_refused(bad):
    optimizer = HierarchicalRNN()
    with pytest.raises(ValueError, match="`total_steps` must be a positive integer"):
        HierarchicalRNN(total_steps=bad)
    with pytest.raises(ValueError, match="`total_steps` must be a positive integer"):
        optimizer.total_steps = bad


def test_total_steps_that_do_not_fit_are_refused():
    model = trained(Problem.make(steps=4))
    with pytest.raises(ValueError, match="made already, 8. Received: total_steps=7"):
        model.optimizer.total_steps = 7
    with pytest.raises(ValueError, match="needs weights with a nominal learning rate"):
        HierarchicalRNN(weights="released", total_steps=10)
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10)
    with pytest.warns(UserWarning, match="falls twice"):
        HierarchicalRNN(schedule, total_steps=10)
