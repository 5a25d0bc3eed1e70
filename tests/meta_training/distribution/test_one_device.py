"""Windows in one process, and what every strategy inherits."""

import pytest

from meta_training.distribution import Outcome, distribution
from meta_training.distribution.one_device import OneDevice
from meta_training.outer.trainer import Trainer
from tests.meta_training.distribution.runs import assert_same, tiny
from tests.meta_training.outer.tiny_runs import Standing


@pytest.mark.slow
def test_a_checkpoint_in_the_middle_of_a_window_goes_on_from_its_start(tmp_path):
    """As under parameter servers, where windows are under way all the time."""
    config = tiny(outer_steps=3)
    whole = Trainer(config, tmp_path / "whole").train()

    class SavesLate(OneDevice):
        def next_outcome(self, meta_parameters):
            (cohort,) = self._cohorts
            start = cohort.begin()
            trainer.save()
            return Outcome([cohort.end(self._estimate(meta_parameters, *start))], {})

    trainer = Trainer(config, tmp_path / "parts", SavesLate())
    trainer._outer_step()
    trainer._outer_step()
    resumed = Trainer(config, tmp_path / "parts")
    assert resumed.outer_step == 1
    assert_same(whole, resumed.train())


def test_only_the_chief_validates_and_writes(tmp_path):
    class Member(Standing):
        is_chief = False

    def validate(meta_parameters):
        raise AssertionError("must not be called")

    config = tiny(validate_every=1)
    folder = tmp_path / "member"
    trainer = Trainer(config, folder, Member())
    trainer.validate_with(validate)
    trainer.train()
    assert trainer.outer_step == config.outer_steps
    assert not folder.exists()


def test_strategies_are_named():
    assert isinstance(distribution("one_device"), OneDevice)
    with pytest.raises(ValueError, match="one of one_device, mirrored.*'two_devices'"):
        distribution("two_devices")
    with pytest.raises(ValueError, match="must go with strategy mirrored alone"):
        distribution("one_device", 2)
