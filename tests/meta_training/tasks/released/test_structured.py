"""Which structured problems are never negative."""

from meta_training.tasks.released.structured import SumOfQuadratics


def test_sum_of_quadratics_is_positive_on_the_whole_data_alone():
    assert SumOfQuadratics(4).positive
    assert not SumOfQuadratics(4, batch_size=10).positive
