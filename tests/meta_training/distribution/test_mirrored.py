"""Replicas on the devices of one machine do what one device does."""

import pytest

from meta_training.distribution import distribution
from meta_training.outer.trainer import Trainer
from tests.meta_training.distribution.runs import assert_same, tiny
from tests.meta_training.outer.tiny_runs import copy_at


@pytest.mark.distributed
class TestMirrored:
    @pytest.mark.slow
    def test_two_replicas_go_on_from_the_checkpoint_of_one_device(self, tmp_path):
        # Four cohorts on two replicas: each has two of them.
        config = tiny(cohorts=4)
        whole = Trainer(config, tmp_path / "whole")
        copy_at(whole, 2, tmp_path / "parts")
        whole.train()
        second = Trainer(config, tmp_path / "parts", distribution("mirrored", 2))
        assert second.outer_step == 2
        assert_same(whole.meta_parameters, second.train())

    @pytest.mark.slow
    def test_cohorts_must_divide_among_replicas(self, tmp_path):
        with pytest.raises(ValueError, match="multiple.*cohorts=3 and 2 replicas"):
            Trainer(tiny(cohorts=3), tmp_path, distribution("mirrored", 2))
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match="at most the number of CPUs. Received: 3"):
            distribution("mirrored", 3)
        with pytest.raises(ValueError, match="1 or more. Received: 0"):
            distribution("mirrored", 0)
