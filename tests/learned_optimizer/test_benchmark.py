"""The benchmark of a step, as a user calls it."""

import math

import pytest

from learned_optimizer import benchmark, load_weights
from learned_optimizer.utils.measuring import run_module
from tests.conftest import output_of

PARAMETERS = 20_000


@pytest.mark.slow
def test_the_last_line_is_an_object_with_the_figures():
    found = run_module(
        "learned_optimizer.benchmark",
        parameters=PARAMETERS,
        tensors=4,
        repetitions=2,
        json=True,
    )
    for name in (
        *("ns_per_parameter", "adam_ns_per_parameter", "state_bytes_per_parameter"),
        *("compile_seconds", "milliseconds", "peak_bytes", "extra_peak_bytes"),
    ):
        assert found[name] > 0, name
    assert found["parameters"] == PARAMETERS
    assert found["milliseconds"] * 1e6 == pytest.approx(
        found["ns_per_parameter"] * PARAMETERS
    )
    # 19 float32 a parameter; padding, tensors' states and the weights come on top.
    weights = sum(x.size for x in load_weights("default").meta_parameters.values())
    least = 19 * 4 + 4 * weights / PARAMETERS
    assert least < found["state_bytes_per_parameter"] < 1.1 * least


@pytest.mark.slow
def test_a_step_of_fit_is_timed_beside_adams():
    flags = ["--fit=dense", "--repetitions=1", "--state_dtype=bfloat16", "--pieces"]
    output = output_of("-m", "learned_optimizer.benchmark", *flags)
    found = [line.split()[:2] for line in output.splitlines()[-2:]]
    assert [name for name, _ in found] == ["hierarchical_rnn", "adam"]
    assert all(float(milliseconds) > 0 for _, milliseconds in found)


def test_the_shapes_of_vit_b16_have_its_number_of_parameters():
    # Dosovitskiy et al. 2021, table 1: 86 million.
    shapes = benchmark.vit_b16_shapes()
    assert sum(math.prod(shape) for shape in shapes) == 86_567_656


def test_figures_are_medians_without_the_steps_before(monkeypatch):
    """Of steps whose times are known: one that compiles, two to warm up, three."""
    times = {"adam": [5.0, 9.0, 9.0, 0.5, 0.1, 0.2]}
    times["hierarchical_rnn"] = [6.0, 9.0, 9.0, 1.0, 3.0, 2.0]
    waiting = {way: iter(seconds) for way, seconds in times.items()}

    def make_step(way, variables, gradients, weights, state_dtype):
        # 76 or 38 bytes per parameter.
        return way, {"float32": 760, "bfloat16": 380}[state_dtype] * len(weights)

    monkeypatch.setattr(benchmark, "make_step", make_step)
    monkeypatch.setattr(benchmark, "timed", lambda step: next(waiting[step]))
    monkeypatch.setattr(benchmark, "peak_in_child", lambda way, *_: {"peak": way})
    found = benchmark.measure((None, 40, 2), 3, 2, "1234", "bfloat16")
    for way, seconds in (("adam", 0.2), ("hierarchical_rnn", 2.0)):
        assert found[way] == {
            "parameters": 40,
            "peak": way,
            "state_bytes_per_parameter": 38.0,
            "first_step_seconds": times[way][0],
            "milliseconds": pytest.approx(1e3 * seconds),
            "ns_per_parameter": pytest.approx(1e9 * seconds / 40),
            "compile_seconds": pytest.approx(times[way][0] - seconds),
        }
