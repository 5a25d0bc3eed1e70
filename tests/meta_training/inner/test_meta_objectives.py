"""Which objectives can be trained on, and what meta-objectives make of them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import preset
from meta_training.tasks import register_task_set
from meta_training.tasks.base import Task
from meta_training.tasks.released.algebraic import Bowl
from tests.meta_training.outer.tiny_runs import TINY


@dataclasses.dataclass(frozen=True)
class Negative(Task):
    """An objective that starts at `start`."""

    start: float = -1.0
    numbers = ("start",)
    parameter_shapes = ((2,),)

    def sample_instance(self, generator):
        return {"start": np.float32(self.start)}

    def objective(self, parameters, instance):
        return instance["start"] + 0.0 * tf.reduce_sum(parameters[0], axis=-1)


@dataclasses.dataclass(frozen=True)
class Misshapen(Task):
    """An objective that is not a number for each problem."""

    kind: str
    parameter_shapes = ((2,),)

    def sample_instance(self, generator):
        return {"scale": generator.exponential(size=2)}  # Of double precision.

    def objective(self, parameters, instance):
        squares = tf.square(parameters[0])
        if self.kind == "double":
            return tf.reduce_sum(squares * instance["scale"], axis=-1)
        if self.kind == "scalar":
            return tf.reduce_sum(squares)
        return tf.reduce_sum(squares, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Shifted(Task):
    """A bowl whose bottom lies at `level`."""

    level: float
    positive = False
    parameter_shapes = ((2,),)

    def objective(self, parameters, instance):
        return self.level + tf.reduce_sum(parameters[0] ** 2, axis=-1)


SETS = {
    "negative": [Negative()],
    "not_finite": [Negative(float("nan"))],
    **{kind: [Misshapen(kind), Bowl(5.0)] for kind in ("scalar", "column", "double")},
    "signed": [Bowl(5.0), Shifted(-1.0)],
    "100": [Shifted(100.0)],
    "-100": [Shifted(-100.0)],
}
for _name, _tasks in SETS.items():
    register_task_set(f"trainer_test_{_name}")(lambda tasks=_tasks: tasks)


@pytest.mark.parametrize(
    "task_set, message",
    [
        ("trainer_test_negative", "must be 0 or more at its start .*log. Received: -1"),
        ("trainer_test_not_finite", "must be finite"),
        (
            "trainer_test_scalar",
            r"a number for each problem.*float32 of shape \(\) from misshapen",
        ),
        ("trainer_test_column", r"of shape \(1, 1\) from misshapen"),
        ("trainer_test_double", "must be computable. Received: misshapen"),
    ],
)
def test_unusable_objectives_are_refused(tmp_path, task_set, message):
    trainer = Trainer(preset("default", **{**TINY, "task_set": task_set}), tmp_path)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_objectives_that_may_be_negative_go_with_another_meta_objective(tmp_path):
    changes = {**TINY, "task_set": "trainer_test_signed"}
    with pytest.raises(
        ValueError,
        match="must be 0 or more for the meta-objective log. Received: .*shifted",
    ):
        Trainer(preset("default", **changes), tmp_path)
    Trainer(preset("default", **changes, meta_objective="linear"), tmp_path)


@pytest.mark.parametrize(
    "meta_objective, level", [("relative", -100), ("linear", 100), ("linear", -100)]
)
def test_meta_objectives_reward_descent_wherever_an_objective_starts(
    tmp_path, meta_objective, level
):
    config = preset(
        "released",
        **{**TINY, "init_weights": None, "task_set": f"trainer_test_{level}"},
        optimizer="global_learning_rate",
        meta_objective=meta_objective,
        meta_learning_rate=0.01,
    )
    trainer = Trainer(config, tmp_path)
    before = float(trainer.meta_parameters["log_learning_rate"])
    if meta_objective == "linear" and level < 0:
        with pytest.raises(
            ValueError, match="at its start for the meta-objective linear. Received: -"
        ):
            trainer.train()
        return
    trainer.train()
    # Rates below 1e-2 are far too low for a bowl.
    assert float(trainer.meta_parameters["log_learning_rate"]) > before
