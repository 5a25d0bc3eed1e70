"""Windows in one process, and what every strategy inherits."""

import pytest

from meta_training.distribution import distribution
from meta_training.distribution.in_one_process import OneDevice
from meta_training.outer.trainer import Trainer
from tests.arrays import assert_equal
from tests.meta_training.distribution.runs import tiny
from tests.meta_training.outer.tiny_runs import Standing, copy_at


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
            return [cohort.end(self._estimate(meta_parameters, *start))], {}

    trainer = Trainer(config, tmp_path / "parts", SavesLate())
    trainer._outer_step()
    trainer._outer_step()
    resumed = Trainer(config, tmp_path / "parts")
    assert resumed.outer_step == 1
    assert_equal(resumed.train(), whole)


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


@pytest.mark.distributed
@pytest.mark.slow
def test_two_replicas_go_on_from_the_checkpoint_of_one_device(tmp_path):
    # Four cohorts on two replicas: each has two of them.
    config = tiny(cohorts=4)
    whole = Trainer(config, tmp_path / "whole")
    copy_at(whole, 2, tmp_path / "parts")
    whole.train()
    second = Trainer(config, tmp_path / "parts", distribution("mirrored", 2))
    assert second.outer_step == 2
    assert_equal(second.train(), whole.meta_parameters)


@pytest.mark.distributed
@pytest.mark.slow
def test_cohorts_must_divide_among_replicas(tmp_path):
    with pytest.raises(ValueError, match="multiple.*cohorts=3 and 2 replicas"):
        Trainer(tiny(cohorts=3), tmp_path, distribution("mirrored", 2))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at most the number of CPUs. Received: 3"):
        distribution("mirrored", 3)
    with pytest.raises(ValueError, match="1 or more. Received: 0"):
        distribution("mirrored", 0)
