"""Which tasks an experiment evaluates on."""

import pytest

from meta_training.experiments.evaluated import choose_tasks


def test_tasks_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="nothing_like_it"):
        choose_tasks(["test"], ["nothing_like_it"])
