"""The unroll against the released code: meta-objectives and meta-gradients."""

import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer.rule import state as rule_state
from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import (
    from_released_names,
    to_released_names,
)
from meta_training.inner.problem_batch import ProblemBatch
from meta_training.inner.unroll import Unroll
from meta_training.inner.windows import Carry, InnerState, UnrollConfig
from meta_training.optimizers import HierarchicalRule
from meta_training.tasks.released.algebraic import Quadratic
from meta_training.tasks.released.classifiers import FullyConnected
from meta_training.tasks.released.test_functions import Rosenbrock
from tests.arrays import assert_close
from tests.golden import read_golden

MANIFEST = read_golden.load_manifest()
ARRAYS = np.load(read_golden.HERE / "meta_objective.npz")
CASES = sorted(MANIFEST["meta_objective"])
VARIANTS = [
    (name, second, epsilon)
    for name in CASES
    for second in (0, 1)
    for epsilon in (0, 1)
    if any(key.startswith(f"{name}/second{second}_numeps{epsilon}/") for key in ARRAYS)
]
COMPILED = [("quad20_two_unrolls_pert", 1, 0), ("quad20_attention_pert", 0, 0)]
META_OBJECTIVE = dict(atol=1e-5, rtol=1e-5)
RELATIVE_META_GRADIENT = 1e-4


class GoldenBatch(ProblemBatch):
    """One problem whose minibatches are those of the golden data."""

    def __init__(self, task, batches):
        super().__init__([task], block_size=8)
        self._batches = batches

    def draw(self, seed, step):
        draws = super().draw(seed, step)
        if self._batches is not None:
            draws.rows[0] = tf.constant(self._batches, tf.int32)[None, step]
        return draws


def golden_problem(name):
    """The batch, the instance, and the golden arrays of one case."""
    keys = [key for key in ARRAYS if key.startswith(f"{name}/")]
    case = {key.removeprefix(f"{name}/"): ARRAYS[key] for key in keys}
    if name.startswith("fc8"):
        task = FullyConnected(8, (8, 5), rows=32, batch_size=10)
        instance = {"data": case["data"], "labels": case["labels"]}
    elif name.startswith("rosenbrock"):
        task, instance = Rosenbrock(), Rosenbrock().sample_instance(None)
    else:
        task, instance = Quadratic(20), {"w": case["w"], "y": case["y"]}
        instance |= {"parameter_scale": np.float32(1), "logarithm": np.float32(0)}
    instance = {key: np.asarray(value)[None] for key, value in instance.items()}
    return GoldenBatch(task, case.get("batches")), instance, case


def golden_config(name):
    switches = MANIFEST["meta_objective"][name]["config"]
    return Config.from_dict(switches | {"global_rnn_input": "last_tensor"})


def first_carry(batch, instance, case, meta_parameters, config):
    tensors = range(len(batch.tasks[0].parameter_shapes))
    values = batch.pack([[case[f"x0/{i}"][None] for i in tensors]])
    rates = batch.pack([[case[f"log_lr0/{i}"].reshape(1, -1) for i in tensors]])
    state = rule_state.initial_state(
        batch.layout, meta_parameters, config, np.asarray(rates)[None]
    )
    attended = values if config.attention else tf.zeros([0, batch.layout.block_size])
    return Carry(
        inner=InnerState(values, attended, state),
        fresh=tf.ones([1]),
        alive=tf.ones([1]),
        initial_objective=tf.zeros([1]),
        inverse_scale=tf.ones([len(batch.layout.block_tensor), 1]),
        weights=tf.ones([1]),
        instances=[instance],
    )


def check(case, prefix, suffix, window, gradient, name, config):
    steps = len(case[f"objs{suffix}"]) - 1
    wanted = case[f"objs{suffix}"][1:]
    assert_close(window.objectives[:steps, 0], wanted, rtol=2e-5, atol=1e-5)
    assert_close(window.losses[0], case[f"{prefix}/metaobj"], **META_OBJECTIVE)
    layout = MANIFEST["meta_layouts"][MANIFEST["meta_objective"][name]["meta_layout"]]
    expected = read_golden.unpack_meta(case[f"{prefix}/metagrad"], layout)
    found = to_released_names(config, gradient)
    atol = RELATIVE_META_GRADIENT * np.abs(case[f"{prefix}/metagrad"]).max()
    assert_close(found, expected, atol=atol, where=prefix)


def _is_quick(name, second, epsilon):
    """Each case, with second derivatives; each setting, on one case."""
    return (second == 1 and epsilon == 0) or name == CASES[0]


@pytest.mark.parametrize(
    "name, second, epsilon",
    [
        pytest.param(*variant, marks=() if _is_quick(*variant) else pytest.mark.slow)
        for variant in VARIANTS
    ],
)
def test_meta_objective_and_meta_gradient(name, second, epsilon):
    batch, instance, case = golden_problem(name)
    config = golden_config(name)
    golden = MANIFEST["meta_objective"][name]
    layout = MANIFEST["meta_layouts"][golden["meta_layout"]]
    meta_parameters = from_released_names(
        config, read_golden.unpack_meta(case["meta"], layout)
    )
    objective = "log_numerator_epsilon" if epsilon else "log"
    if not golden["use_log_objective"]:
        objective = "linear"
    options = UnrollConfig(
        max_steps=24, meta_objective=objective, second_derivatives=bool(second)
    )
    unroll = Unroll(batch, HierarchicalRule(config), options)
    meta_parameters = {k: tf.constant(v) for k, v in meta_parameters.items()}
    carry = first_carry(batch, instance, case, meta_parameters, config)
    # Compiled is how the trainer runs it; tracing alone is quicker for most cases.
    differentiate = tf.function(
        unroll.run_and_differentiate,
        jit_compile=(name, second, epsilon) in COMPILED,
        autograph=False,
    )
    prefix = f"second{second}_numeps{epsilon}"
    if "two_unrolls" not in name:
        window, gradient = differentiate(meta_parameters, carry, 20, 0)
        check(case, prefix, "", window, gradient, name, config)
        values = [value[0] for value in batch.unpack(window.inner.values)[0]]
        wanted = [case[f"x_final/{i}"] for i in range(len(values))]
        assert_close(values, wanted, rtol=1e-7, atol=1e-5)
        return
    for number in (1, 2):
        window, gradient = differentiate(meta_parameters, carry, tf.constant(10), 0)
        suffix = f"/unroll{number}"
        check(case, prefix + suffix, suffix, window, gradient, name, config)
        carry = carry._replace(
            inner=window.inner,
            fresh=tf.zeros([1]),
            alive=window.alive,
            initial_objective=window.initial_objective,
        )
    for part in ("parameter_start", "tensor_start", "global_start"):
        assert not np.any(gradient[part])
