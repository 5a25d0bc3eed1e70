"""The update rule against what the released code computed, case by case."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule import update_rule
from learned_optimizer.rule.layout import Layout
from tests.conftest import inherited_environment
from tests.golden import read_golden
from tests.learned_optimizer import golden

# The manifest's suggested tolerances, and a little over them where it gives none.
PARAMETERS = dict(atol=1e-5, rtol=1e-5)
PARAMETERS_WITHOUT_OUTPUT_SCALE = dict(atol=5e-5, rtol=1e-5)
STATES = dict(atol=5e-5, rtol=1e-5)
RELATIVE = 1e-4


# Every case in one layout; the others are exact elsewhere (test_update_rule.py), so
# here a case of several tensors, of attention and without learning rates will do.
@pytest.mark.parametrize(
    "name, block_size, blocks_per_chunk",
    [(name, 8, None) for name in golden.case_names()]
    + [
        (name, *sizes)
        for name in golden.case_names()
        if name in ("e_pert", "b_pert_multi", "f_dynamic_output_scale_off")
        for sizes in ((1, None), (4, 2))
    ],
)
def test_update_rule_follows_the_released_code(name, block_size, blocks_per_chunk):
    case = golden.GoldenCase(name)
    expected = case.expected
    layout = Layout.from_shapes(
        case.shapes, block_size=block_size, blocks_per_chunk=blocks_per_chunk
    )
    state = case.initial_state(layout)
    values = packing.pack(case.parameters, layout)
    tolerance = (
        PARAMETERS
        if case.config.dynamic_output_scale
        else PARAMETERS_WITHOUT_OUTPUT_SCALE
    )
    step = _compiled(layout, case)
    for t in range(case.steps):
        gradients = packing.pack([gradient[t] for gradient in case.gradients], layout)
        result, taken = step(values, gradients, state)
        values, state = result.values, result.state
        for i, (new, attended, found) in enumerate(
            zip(
                packing.unpack(values, layout),
                packing.unpack(result.attended_values, layout),
                packing.unpack(taken, layout),
                strict=True,
            )
        ):
            where = f"step {t + 1}, tensor {i}"
            np.testing.assert_allclose(
                new, expected["params"][i][t], err_msg=where, **tolerance
            )
            if "attend" in expected:
                np.testing.assert_allclose(
                    attended, expected["attend"][i][t], err_msg=where, **tolerance
                )
            wanted = case.taken[i][t]
            np.testing.assert_allclose(
                found,
                wanted,
                rtol=0,
                atol=RELATIVE * np.abs(wanted).max(),
                err_msg=where,
            )
        if case.config.levels >= 3:
            np.testing.assert_allclose(
                np.asarray(state.global_state)[:, 0],
                expected["global"][t].reshape(-1),
                **STATES,
            )
        if t + 1 in expected["states"]:
            _check_states(state, layout, expected["states"][t + 1], f"step {t + 1}")
    assert np.all(np.asarray(state.started) == 1)


@pytest.mark.slow
def test_another_folder_may_hold_update_rule_cases_alone(tmp_path):
    manifest = read_golden.load_manifest()
    case = manifest["update_rule"]["f_no_extra_features"]
    arrays = dict(np.load(read_golden.HERE / case["file"]))
    shutil.copy(read_golden.HERE / case["file"], tmp_path / "right.npz")
    # One step of one element, by a little more than it may be.
    step = arrays["step/0"]
    step.reshape(len(step), -1)[10, 3] += 2 * RELATIVE * np.abs(step[10]).max()
    np.savez(tmp_path / "wrong.npz", **arrays)
    reduced = {
        "meta_layouts": manifest["meta_layouts"],
        "update_rule": {
            name: case | {"file": f"{name}.npz"} for name in ("right", "wrong")
        },
    }
    (tmp_path / "manifest.json").write_text(json.dumps(reduced))
    file = pathlib.Path(__file__)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file],
        cwd=file.parents[2],
        env=inherited_environment() | {"GOLDEN_DIR": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout[-4000:]
    assert "1 failed, 1 passed" in done.stdout
    assert "released_code[wrong-8-None]" in done.stdout
    assert "step 11, tensor 0" in done.stdout


def _compiled(layout, case):
    def step(values, gradients, state):
        """An `Update`, and what it takes off before it is rounded to the values."""
        arguments = (gradients, state, layout, case.meta_parameters, case.config)
        taken = update_rule.compute_step(*arguments)
        return taken.applied_to(values), taken.step

    if keras.backend.backend() != "tensorflow":
        return step
    import tensorflow as tf

    return tf.function(step)


def _check_states(state, layout, expected, where):
    for i, tensor in enumerate(expected):

        def rows(packed, i=i):
            blocks = np.asarray(packed)[:, layout.blocks_of(i)]
            return packing.rows_of_blocks(blocks, layout.shapes[i])

        np.testing.assert_allclose(
            rows(state.hidden_state), tensor["parameter"], err_msg=where, **STATES
        )
        if "log_learning_rate" in tensor:
            np.testing.assert_allclose(
                rows(state.log_learning_rate),
                tensor["log_learning_rate"],
                err_msg=where,
                **STATES,
            )
        if "layer" in tensor:
            np.testing.assert_allclose(
                np.asarray(ops.transpose(state.tensor_state))[i],
                tensor["layer"][0],
                err_msg=where,
                **STATES,
            )
        for ours, theirs in (
            ("gradient_averages", "grad_accum"),
            ("mean_squares", "ms"),
        ):
            packed = rows(getattr(state, ours))
            for k in range(packed.shape[1]):
                wanted = tensor[f"{theirs}{k + 1}"][:, 0]
                np.testing.assert_allclose(
                    packed[:, k],
                    wanted,
                    rtol=RELATIVE,
                    atol=RELATIVE * np.abs(wanted).max(),
                    err_msg=f"{where}, {theirs}{k + 1}",
                )
