"""The benchmark of many models in one process; they cost no more than Adam's."""

import pytest

from learned_optimizer import benchmark_models
from learned_optimizer.utils.measuring import run_module


@pytest.mark.slow
def test_a_small_model_costs_as_little_as_with_adam():
    found = run_module(
        "learned_optimizer.benchmark_models", parameters=200, models=12, json=True
    )
    ours, adam = found["hierarchical_rnn"], found["adam"]
    assert ours["parameters"] == adam["parameters"] == 211
    assert 0 < ours["cpu_seconds"] < 1.5 * adam["cpu_seconds"]
    assert ours["bytes_per_model"] < 15e6


def test_figures_are_of_the_models_after_the_first(monkeypatch):
    times = iter([0.0, 5.0, 5.0, 6.0, 6.0, 9.0])
    resident = iter([100, 170, 180, 200])
    monkeypatch.setattr(benchmark_models, "fit_model", lambda *arguments: 211)
    monkeypatch.setattr(benchmark_models, "resident_bytes", lambda: next(resident))
    monkeypatch.setattr(benchmark_models.time, "perf_counter", lambda: next(times))
    found = benchmark_models.measure("adam", 200, models=3, steps=3)
    assert found["cpu_seconds"] >= 0
    del found["cpu_seconds"]
    assert found == {
        "parameters": 211,
        "first_seconds": 5.0,
        "seconds": 2.0,
        "bytes_of_first": 70,
        "bytes_per_model": 20,
    }
