"""What a step needs beside state, gradients and parameters; too little memory."""

import types

import keras
import numpy as np
import pytest

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step import device_memory, model_layout
from learned_optimizer.utils import measuring
from tests.conftest import on_backends

MOST_BYTES = 1_000_000_000


@pytest.fixture(autouse=True)
def as_on_an_accelerator(monkeypatch):
    monkeypatch.setenv(model_layout.FORCE_PIECES, "1")


@pytest.mark.slow
@pytest.mark.backend("jax")
@pytest.mark.parametrize(
    "shapes",
    [[(1_000, 3_000)] * 10 + [(3_000,)] * 10, [(100_000, 1_000)]],
    ids=["30 million", "100 million in one tensor"],
)
def test_a_step_needs_less_than_a_gigabyte(shapes):
    """Compiled, not run: nothing of that size is ever made."""
    import jax

    optimizer = HierarchicalRNN()
    made = []

    def build():
        made.extend(keras.Variable(jax.numpy.zeros(shape)) for shape in shapes)
        optimizer.build(made)
        return [variable.value for variable in made]

    jax.eval_shape(build)
    state, values = (
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
        for variables in (optimizer.variables, made)
    )

    def step(state, values, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(state, values, values)
    memory = lowered.compile().memory_analysis()
    # 4 bytes a parameter are gradients as they are packed, and then the steps.
    parameters = sum(np.prod(shape) for shape in shapes)
    assert memory.temp_size_in_bytes < MOST_BYTES
    assert memory.temp_size_in_bytes < 4.1 * parameters + 5.5e8
    # What was given is written over.
    assert memory.alias_size_in_bytes > 80 * parameters
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 1e6


@pytest.mark.parametrize("backend", on_backends("tensorflow", "torch", is_slow=True))
def test_a_step_passes_over_pieces(backend, monkeypatch):
    # One shard of 16 pieces: all at once they would take 2 to 3 GB.
    monkeypatch.setattr(model_layout, "MAX_SHARDS", 1)
    variables = [keras.Variable(np.ones((1_000, 8_000), np.float32))]
    gradients = [keras.ops.ones((1_000, 8_000))]
    optimizer = HierarchicalRNN()
    optimizer.build(variables)
    assert keras.backend.backend() == backend
    assert optimizer._layout[0].num_chunks == 16
    before = measuring.resident_bytes()
    measuring.reset_peak()
    optimizer.apply(gradients, variables)
    assert measuring.peak_bytes() - before < 8e8


@pytest.mark.parametrize("backend", [*on_backends("jax"), "torch"])
def test_too_little_memory_is_an_error_before_anything_is_made(backend, monkeypatch):
    if backend == "jax":
        import jax

        stats = {"bytes_limit": 100_000, "bytes_in_use": 30_000}
        device = types.SimpleNamespace(memory_stats=lambda: stats)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
    else:
        torch = pytest.importorskip("torch")
        # Of 60,000 and 10,000 that PyTorch keeps.
        numbers = {"mem_get_info": (60_000, 100_000), "is_available": True}
        numbers |= {"memory_reserved": 30_000, "memory_allocated": 20_000}
        for name, value in numbers.items():
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
        monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert device_memory.free_bytes() == 70_000
    layout = model_layout.model_layout([(1_000,)])
    optimizer = HierarchicalRNN()
    message = r"must have 8\d,\d{3} bytes free.*1,000 parameters.*Received: 70,000"
    with pytest.raises(MemoryError, match=message):
        device_memory.check_memory(layout, optimizer.config, "float32")
    device_memory.check_memory(layout, optimizer.config, "bfloat16")
    if backend == "jax":
        with pytest.raises(MemoryError, match=message):
            optimizer.build([keras.Variable(np.zeros(1_000, np.float32))])
        assert not optimizer.built


def test_devices_that_do_not_tell_are_not_asked():
    assert device_memory.free_bytes() is None
