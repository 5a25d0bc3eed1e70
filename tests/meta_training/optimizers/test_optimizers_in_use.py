"""The trainable optimizers in use: trainer, evaluation, validation, errors."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule.layout import Layout
from learned_optimizer.rule.nominal_rate import NominalRate
from meta_training.evaluation import write_report
from meta_training.evaluation.comparison import EvaluationConfig, evaluate
from meta_training.optimizers import (
    CoordinatewiseRNN,
    GlobalLearningRate,
    LearningRateSchedule,
    TrainableAdam,
    fresh_trained,
    list_optimizers,
    load_trained,
    register_optimizer,
    starting_weights,
    trainable_optimizer,
)
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.outer.validation import Validator
from meta_training.runs import draw_runs
from meta_training.tasks.released.algebraic import Bowl
from tests.arrays import assert_equal
from tests.conftest import slow
from tests.meta_training.outer import tiny_runs
from tests.meta_training.outer.test_validation import SMALL

OTHERS = [name for name in list_optimizers() if name != "hierarchical_rnn"]
TINY = {**tiny_runs.TINY, "init_weights": None, "checkpoint_every": 1, "outer_steps": 2}


@pytest.mark.parametrize(
    "name, estimator",
    [
        ("learning_rate_schedule", "pes"),
        slow("coordinatewise_rnn", "pes"),
        slow("global_learning_rate", "truncated"),
        slow("hierarchical_rnn", "truncated"),
        slow("trainable_adam", "truncated"),
    ],
)
def test_the_trainer_trains_it_and_goes_on(tmp_path, name, estimator):
    config = preset("default", optimizer=name, estimator=estimator, **TINY)
    whole = Trainer(config, tmp_path / "whole")
    tiny_runs.copy_at(whole, 1, tmp_path / "part")
    trained = whole.train()
    fresh = whole.optimizer.initial_meta_parameters(config.seed)
    assert any(np.any(trained[key] != fresh[key]) for key in fresh)
    part = Trainer(config, tmp_path / "part")
    assert part.outer_step == 1
    resumed = part.train()
    saved = load_trained(tmp_path / "part" / "weights.npz")
    assert saved.optimizer == whole.optimizer and saved.card["outer_step"] == 2
    again = starting_weights(name, tmp_path / "part" / "weights.npz")
    for found in (resumed, saved.meta_parameters, again.meta_parameters):
        assert_equal(found, trained)


def last_losses(weights, rate, task, seeds, steps):
    """The losses after runs one by one, step by step, without a loop of the package."""
    draws = draw_runs([task], range(seeds), steps)
    (shape,) = task.parameter_shapes
    layout = Layout.from_shapes([shape], math.prod(shape))
    losses = []
    for draw in range(seeds):
        instance = {name: a[draw : draw + 1] for name, a in draws.instance.items()}
        values = tf.reshape(draws.start[0][draw], [1, -1])
        state = weights.optimizer.initial_state(
            layout, weights.meta_parameters, np.log(rate), values
        )
        for _ in range(steps):
            with tf.GradientTape() as tape:
                tape.watch(values)
                loss = task.objective([tf.reshape(values, [1, *shape])], instance)
            gradient = tape.gradient(loss, values)
            values, _, state = weights.optimizer.update(
                values, gradient, state, layout, weights.meta_parameters
            )
        losses.append(task.objective([tf.reshape(values, [1, *shape])], instance)[0])
    return losses


def test_the_evaluation_trains_with_each(tmp_path):
    weights = [
        dataclasses.replace(fresh_trained(trainable_optimizer(name), 0), name=name)
        for name in OTHERS
    ]
    adam = dataclasses.replace(fresh_trained(TrainableAdam(epsilon=1e-7)), name="adam")
    rates = dict(learning_rates=(1e-3,), initial_rates=(0.02,))
    settings = EvaluationConfig(steps=12, seeds=2, **rates)
    arguments = ([*weights, adam], [Bowl(5.0)], settings, tmp_path, ["Adam"])
    results = evaluate(*arguments)
    *learned, ours, keras_adam = results
    by_path = dataclasses.replace(learned[0], optimizer="/tmp/a run/weights")
    write_report([by_path, *results[1:]], tmp_path, "command")
    assert (tmp_path / "initial_rates_tmp_a_run_weights.png").is_file()
    for result in learned:
        rates = 2 if "rnn" in result.optimizer else 1
        assert result.losses.shape[1:] == (rates, 1, 2)
        own = next(w for w in weights if w.name == result.optimizer)
        for index, rate in enumerate(result.rates):
            wanted = last_losses(own, rate, Bowl(5.0), seeds=2, steps=12)
            np.testing.assert_allclose(result.losses[-1, index, 0], wanted, rtol=1e-4)
    assert ours.rates == (pytest.approx(1e-3),) and ours.is_learned
    np.testing.assert_allclose(ours.losses, keras_adam.losses, rtol=1e-5)


def test_validation_needs_one_rate_where_rates_are_learned():
    optimizer = TrainableAdam(0.01)
    validate = Validator(optimizer, [SMALL], (1e-4, 1e-3, 1e-2), steps=60)
    results = validate(optimizer.initial_meta_parameters())
    assert results["small_one/rate_0.001/step_60"] < 0.3
    assert not any("rate_0.01/" in key for key in results)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: trainable_optimizer("none"), "must be one of coordinatewise_rnn"),
        (
            lambda: trainable_optimizer("trainable_adam", {"x": 1}),
            "settings of trainable_adam must be among",
        ),
        (lambda: register_optimizer(TrainableAdam), "must be new"),
        (lambda: TrainableAdam(beta_1=1.0), "beta_1 must be .* below 1. Received"),
        (lambda: TrainableAdam(learning_rate=0.0), "learning_rate must be .* above 0"),
        (lambda: GlobalLearningRate(-1.0), "initial_rate must be .* above 0"),
        (lambda: LearningRateSchedule(num_steps=0), "num_steps must be .* 1 or more"),
        (lambda: CoordinatewiseRNN(()), "cell_sizes must be one or more"),
        (lambda: CoordinatewiseRNN(cell="lstm"), "cell must be one of gru"),
        (lambda: CoordinatewiseRNN(max_log_learning_rate=40.0), "at most 33"),
        (
            lambda: preset(
                "default", optimizer="trainable_adam", nominal=NominalRate()
            ),
            "optimizer must be hierarchical_rnn where nominal is set",
        ),
    ],
)
def test_errors_state_the_rule_and_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()
